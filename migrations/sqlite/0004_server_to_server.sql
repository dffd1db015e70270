-- What the main API's own calls need: an offer's messages by the offer's id, what every node must hear, work that
-- goes on after its answer, and where an import stands.

-- Of messages with an offer only: all others pass by the condition when they are written.
create index idx_messages_offer on messages (offer ->> '$.id') where offer is not null;

-- Lines for all nodes that must arrive: Redis tells them at once, this table those that did not hear it.
create table announcements (
    id integer primary key autoincrement,
    line text not null,
    created_at integer not null
);

-- Work on many conversations: telling of another name or picture, erasing a person.
create table jobs (
    kind text not null,
    subject_id integer not null,
    -- Where to go on: after this conversation, and inside the next one after this place.
    conversation_id integer not null default 0,
    seq integer not null default 0,
    -- Asked for once more since: the worker that began before starts over.
    round integer not null default 1,
    -- What is done so far.
    changed integer not null default 0,
    -- Some node works on it until then.
    leased_until integer not null,
    created_at integer not null,
    finished_at integer,
    primary key (kind, subject_id)
);

-- How far an import came, by what is being told.
create table import_progress (
    name text primary key,
    value integer not null
);

-- Which conversation of ours a conversation of the main API became.
create table import_conversations (
    source_id integer primary key,
    conversation_id integer not null
);

-- Messages that were read from the main API and do not have their place yet.
create table import_messages (
    id integer primary key,
    conversation_id integer not null,
    sender_id integer not null,
    content text not null,
    type text not null,
    offer text,
    is_read boolean not null,
    read_at integer,
    created_at integer not null,
    updated_at integer not null,
    deleted_at integer
);
create index idx_import_order on import_messages (conversation_id, created_at, id);
