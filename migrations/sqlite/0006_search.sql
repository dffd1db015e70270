-- Search: the texts of 32 messages at a time, without case, in one row. Reading a hundred thousand messages is
-- three thousand rows then. Made in the background, never while a message is sent.

create table search_chunks (
    conversation_id integer not null references conversations (id) on delete cascade,
    -- Messages first_seq to last_seq of the conversation; the first chunk begins at 1, each next one where the
    -- one before it ends. What comes after the last one is searched message by message.
    first_seq integer not null,
    last_seq integer not null,
    last_id integer not null,
    -- Their ids, with commas between them.
    message_ids text not null,
    -- Their folded texts, with U+001F between them; empty where a message was deleted.
    words text not null,
    primary key (conversation_id, first_seq)
);

-- The signatures that search used before, and the index that carried them with every message.
drop index idx_messages_search;
-- SQLite drops the text of a column together with the comma before it, and takes one in a comment for it: the
-- comment goes first (https://www.sqlite.org/lang_altertable.html, section 7, on changes that touch no row).
pragma writable_schema = on;
update sqlite_schema
set sql = replace(sql, '    -- Which pairs of characters the content has, 128 bits in all: search reads few texts that it does not find.
', '')
where name = 'messages';
pragma writable_schema = off;
alter table messages drop column search_low;
alter table messages drop column search_high;
