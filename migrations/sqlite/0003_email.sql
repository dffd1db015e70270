-- E-mail about messages that stay unread: addresses, what was mailed, what is to be mailed.

-- Where a person wants mail, as their own token's validation told; kept only while e-mail is configured.
create table user_contacts (
    user_id integer primary key,
    email text not null,
    language text,
    refreshed_at integer not null,
    -- The mail system said that there is no such mailbox: left alone until the address changes.
    refused_at integer
);

-- Per person and conversation: up to where a mail told of it. One that is waiting to be sent has no mailed_at.
-- No foreign key: checking it would lock the conversation, which every message locks too.
create table email_marks (
    user_id integer not null,
    conversation_id integer not null,
    mailed_seq integer not null,
    mailed_at integer,
    -- Nothing was told in the end: the next message may be mailed about.
    is_void boolean not null default false,
    primary key (user_id, conversation_id)
);

-- Mails that wait, at most one a person: its text is made when it is sent.
create table emails (
    user_id integer primary key,
    -- A random name; the Message-ID is made of it, so that a repetition can be recognised.
    claim text not null,
    attempts integer not null default 0,
    -- While a node sends it, when that node counts as dead.
    next_attempt_at integer not null
);
create index idx_emails_next on emails (next_attempt_at);
