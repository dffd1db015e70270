-- Search: the texts of 32 messages at a time, without case, in one row. Reading a hundred thousand messages is
-- three thousand rows then. Made in the background, never while a message is sent.

create table search_chunks (
    conversation_id bigint not null references conversations (id) on delete cascade,
    -- Messages first_seq to last_seq of the conversation; the first chunk begins at 1, each next one where the
    -- one before it ends. What comes after the last one is searched message by message.
    first_seq bigint not null,
    last_seq bigint not null,
    last_id bigint not null,
    -- Their ids, with commas between them.
    message_ids text not null,
    -- Their folded texts, with U+001F between them; empty where a message was deleted.
    words text not null,
    primary key (conversation_id, first_seq)
)
-- Kept in the row and not compressed while they fit on a page: looking for a word reads them all.
with (toast_tuple_target = 8160);

-- The signatures that search used before, and the index that carried them with every message.
create unique index idx_messages_place on messages (conversation_id, seq);
drop index idx_messages_conversation;
alter index idx_messages_place rename to idx_messages_conversation;
alter table messages drop column search_low, drop column search_high;
