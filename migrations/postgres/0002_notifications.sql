-- What each person was last pushed of each conversation, and how far the sweeper looked.
-- Sends never write here; migrations/sqlite has the same tables and columns.

create table notification_marks (
    user_id bigint not null,
    conversation_id bigint not null references conversations (id) on delete cascade,
    -- Everything up to here was pushed, or is not to be.
    pushed_seq bigint not null default 0,
    pushed_at timestamptz,
    -- A push is on somebody's screen until the messages are read.
    is_shown boolean not null default false,
    -- A push under way: up to where, whose, since when. A claim that is not settled lapses.
    claimed_seq bigint not null default 0,
    claim bigint,
    claimed_at timestamptz,
    attempts integer not null default 0,
    primary key (user_id, conversation_id)
)
-- Claiming and settling update the row; none of what they change is in the primary key.
with (fillfactor = 70);
-- Only claims that are under way, or were left by a node that died.
create index idx_marks_claimed on notification_marks (claimed_at) where claimed_at is not null;

-- Up to which message a sweeper has looked, and which node looks: a row for pushes and one for mail.
create table notification_sweeps (
    name varchar(20) primary key,
    message_id bigint not null,
    leased_by bigint,
    leased_until timestamptz
);
