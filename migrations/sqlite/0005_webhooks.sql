-- Events on their way to the main API: written in the transaction that causes them, only where webhooks are configured.
-- A row refers to what happened; what is sent is built from the other tables at each attempt, so that no text is kept here.

create table webhook_deliveries (
    id integer primary key autoincrement,
    -- The same at every attempt: receivers know repetitions by it.
    event_id text not null,
    event text not null,
    target text not null,
    conversation_id integer,
    message_id integer,
    -- What no other table has, JSON text of ids and times.
    payload text,
    attempts integer not null default 0,
    last_error text,
    created_at integer not null,
    -- When it was given to the queue: at its creation, or by a replay.
    queued_at integer not null,
    -- A delivery waits (due_at), is done (delivered_at) or is given up (dead_at). A claim moves due_at on.
    due_at integer,
    delivered_at integer,
    dead_at integer
);
create index idx_webhook_deliveries_due on webhook_deliveries (target, due_at, id) where due_at is not null;
create index idx_webhook_deliveries_delivered on webhook_deliveries (delivered_at) where delivered_at is not null;
create index idx_webhook_deliveries_dead on webhook_deliveries (dead_at) where dead_at is not null;

-- Targets that said that they are gone for good.
create table webhook_targets (
    target text primary key,
    disabled_at integer not null
);
