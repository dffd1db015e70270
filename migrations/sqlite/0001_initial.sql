-- The specification's tables, names and columns, and what the contract needs beside them.
-- Ids and times are INTEGER (times in milliseconds since the Unix epoch). migrations/postgres has the same tables
-- and columns; a test compares the two.

create table conversations (
    id integer primary key autoincrement,
    user1_id integer not null,
    user2_id integer not null,
    product_id integer,
    created_at integer not null,
    updated_at integer not null,
    last_message_at integer,
    last_message_id integer,
    -- The newest message's place in this conversation; the next one gets last_seq + 1.
    last_seq integer not null default 0,
    check (user1_id < user2_id)
);
-- SQLite holds two nulls for different; product ids are positive, so 0 can stand for none.
create unique index idx_conversations_user1 on conversations (user1_id, user2_id, coalesce(product_id, 0));
create index idx_conversations_user2 on conversations (user2_id);
create index idx_conversations_product on conversations (product_id);

create table conversation_participants (
    id integer primary key autoincrement,
    conversation_id integer not null references conversations (id) on delete cascade,
    user_id integer not null,
    unread_count integer not null default 0 check (unread_count >= 0),
    last_read_at integer,
    is_archived boolean not null default false,
    created_at integer not null,
    -- Everything up to here reached a device of this user.
    delivered_seq integer not null default 0,
    delivered_at integer,
    -- Everything up to here is read; later messages may be too, one by one.
    read_seq integer not null default 0,
    -- The history up to here is gone for this user, who deleted the conversation.
    cleared_seq integer not null default 0,
    is_hidden boolean not null default false,
    is_muted boolean not null default false,
    muted_until integer,
    unique (conversation_id, user_id)
);
create index idx_participants_user on conversation_participants (user_id);

create table messages (
    id integer primary key autoincrement,
    conversation_id integer not null references conversations (id) on delete cascade,
    seq integer not null,
    sender_id integer not null,
    content text not null,
    type text not null default 'text',
    file_url text,
    attachment_id integer,
    reply_to_id integer,
    metadata text,
    offer text,
    client_message_id text,
    -- What was asked for under client_message_id: the same id with another body is a conflict.
    fingerprint integer,
    has_reactions boolean not null default false,
    is_read boolean not null default false,
    read_at integer,
    edited_at integer,
    created_at integer not null,
    updated_at integer not null,
    deleted_at integer,
    -- Which pairs of characters the content has, 128 bits in all: search reads few texts that it does not find.
    search_low integer not null default 0,
    search_high integer not null default 0
);
create unique index idx_messages_conversation on messages (conversation_id, seq);
-- Search goes through a user's history without touching the table.
create index idx_messages_search on messages (conversation_id, seq, search_low, search_high);
create unique index idx_messages_sender on messages (sender_id, client_message_id);

create table message_edits (
    id integer primary key autoincrement,
    message_id integer not null references messages (id) on delete cascade,
    content text not null,
    replaced_at integer not null
);
create index idx_edits_message on message_edits (message_id);

create table message_reactions (
    id integer primary key autoincrement,
    message_id integer not null references messages (id) on delete cascade,
    user_id integer not null,
    emoji text not null,
    created_at integer not null,
    unique (message_id, user_id, emoji)
);

-- Each user's log: every stored event in the order of that user's own counter, without gaps.
create table user_log_heads (
    user_id integer primary key,
    last_seq integer not null
);

create table user_events (
    user_id integer not null,
    event_seq integer not null,
    kind integer not null,
    conversation_id integer not null,
    message_id integer,
    payload text,
    created_at integer not null,
    primary key (user_id, event_seq)
) without rowid;
create index idx_events_created on user_events (created_at);

create table blocks (
    blocker_id integer not null,
    blocked_id integer not null,
    created_at integer not null,
    primary key (blocker_id, blocked_id)
);
create index idx_blocks_blocked on blocks (blocked_id);

-- What the main API told about users and products, so that the service can answer while it is away.
create table user_profiles (
    id integer primary key,
    name text not null,
    avatar_url text,
    refreshed_at integer not null
);

create table user_presence (
    user_id integer primary key,
    last_seen integer,
    is_private boolean not null default false
);

create table product_cards (
    id integer primary key,
    title text not null,
    thumbnail_url text,
    image_urls text not null,
    price_per_day real,
    owner_id integer,
    refreshed_at integer not null
);

create table attachments (
    id integer primary key autoincrement,
    uploader_id integer not null,
    message_id integer,
    name text not null,
    mime_type text not null,
    size integer not null,
    width integer,
    height integer,
    storage_key text not null,
    thumbnail_key text,
    sha256 text not null,
    created_at integer not null
);
create index idx_attachments_uploader on attachments (uploader_id);
create index idx_attachments_message on attachments (message_id);

create table devices (
    id integer primary key autoincrement,
    user_id integer not null,
    token text not null,
    device_type text not null,
    device_id text,
    app_version text,
    created_at integer not null,
    last_used_at integer not null,
    unique (token)
);
create index idx_devices_user on devices (user_id);

create table notification_preferences (
    user_id integer primary key,
    push boolean not null default true,
    email boolean not null default true,
    quiet_hours text,
    updated_at integer not null
);

-- Keys that all nodes must share and that nobody configured.
create table settings (
    name text primary key,
    value text not null
);
