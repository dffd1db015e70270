-- A history of :messages messages over a year, as the service would have left it, in its own schema (made by
-- `rented-messaging migrate`), for scripts/growth. Needs :users, :heavy (users with 100,000 messages each), a
-- superuser and a server of its own: indexes are made afterwards, foreign keys are not checked while it runs
-- (growth-check.sql does), and truncating first lets a server with wal_level=minimal write no log of it.
--
-- Conversations begin in the order of their ids and live side by side in blocks of about 100,000 messages, so a
-- conversation's messages lie on as many pages as it has messages: the worst case for reading a page of them.
\set days 30
set work_mem = '512MB';
set maintenance_work_mem = '1GB';
set session_replication_role = replica;
set client_min_messages = warning;

-- Ten ordinary conversations have a hundred messages together; a heavy user's have a hundred each.
select (:messages - :heavy * 100000) / 10 + :heavy * 1000 as conversations,
    case when :heavy > 0 then ((:messages - :heavy * 100000) / 10 + :heavy * 1000) / (:heavy * 1000) else 0 end as every,
    ceil(:messages / 100000.0)::int as blocks \gset

create temp table planned as
select id, product_id, least(one, other) as user1_id, greatest(one, other) as user2_id, length,
    -- One in four is not read to its end.
    length - case when id % 4 = 0 then least(length, 3) else 0 end as read_seq,
    (id - 1) * :blocks / :conversations as block
from (
    select id, 1 + id % 20000 as product_id, is_heavy,
        1 + id % :users as one,
        case when is_heavy then :users + 1 + id / :every % :heavy
            else 1 + (id + 1 + id / :users * 1000 + id % 997) % :users end as other,
        case when is_heavy then 100 else (array[1, 2, 3, 4, 5, 6, 8, 11, 20, 40])[1 + id % 10] end as length
    from (select id, case when :every > 0 then id % nullif(:every, 0) = 0 and id / :every <= :heavy * 1000
        else false end as is_heavy from generate_series(1, :conversations) as id) n
) c;
create index on planned (block);
create temp table blocks as
select block, sum(sum(length)) over (order by block) - sum(length) as before, sum(sum(length)) over () as total
from planned group by block;
analyze planned;

create function pg_temp.words(n bigint) returns text language sql immutable as $$
    select (array['Hello, is the camera still free next weekend?', 'Yes, it is.', 'We would need it from Friday evening.',
        'Could I pick it up at three?', 'Thank you!', 'The drill comes with two batteries and a charger.',
        'How much is it for four days?', 'I would rather meet at the station, if that suits you.',
        'The tent is dry and complete, I looked this morning.', 'Great, see you on Saturday then.',
        'Sorry, somebody else has it until Monday.', 'Is a deposit needed?', 'No, your word is enough.',
        'It is a little scratched on the left side, but works well.', 'I will be ten minutes late.',
        'Where should I leave the key when nobody is at home?'])[1 + n % 16]
$$;

begin;
truncate messages, search_chunks, conversations, conversation_participants, user_events, user_log_heads, user_profiles,
    user_presence, product_cards cascade;
update pg_index set indisready = false, indisvalid = false
where indrelid = any(array['messages', 'search_chunks', 'user_events']::regclass[]);

-- In the service's order: what is sent first is stored first.
select format($block$
    with new as (
        insert into messages (id, conversation_id, seq, sender_id, content, client_message_id, fingerprint, is_read,
            read_at, created_at, updated_at)
        select id, conversation_id, seq, sender_id,
            pg_temp.words(conversation_id * 7 + seq * 3) || ' ' || pg_temp.words(id * 5 + seq)
                || case when id %% 1000 = 7 then ' The serial number is SN-' || id || '.' else '' end,
            gen_random_uuid(), id * 2654435761, is_read, case when is_read then at + interval '1 minute' end, at, at
        from (
            select %2$s + row_number() over (order by r, p.id) as id, p.id as conversation_id, r as seq,
                case when (p.id + r) %% 2 = 0 then p.user1_id else p.user2_id end as sender_id, r <= p.read_seq as is_read,
                now() - interval '365 days' * (1 - (%2$s + row_number() over (order by r, p.id)) / %3$s::float8) as at
            from planned p cross join generate_series(1, p.length) as r where p.block = %1$s
        ) m
        returning conversation_id, seq, id, content
    )
    insert into search_chunks (conversation_id, first_seq, last_seq, last_id, message_ids, words)
    select conversation_id, min(seq), max(seq), max(id), string_agg(id::text, ',' order by seq),
        string_agg(lower(content), chr(31) order by seq)
    from new group by conversation_id, (seq - 1) / 32
$block$, block, before, total) from blocks order by block \gexec

insert into conversations (id, user1_id, user2_id, product_id, created_at, updated_at, last_message_at, last_message_id,
    last_seq)
select p.id, p.user1_id, p.user2_id, p.product_id, f.created_at, l.created_at, l.created_at, l.id, p.length
from planned p
join messages f on f.conversation_id = p.id and f.seq = 1
join messages l on l.conversation_id = p.id and l.seq = p.length
order by p.id;
-- Whose seqs are unread: of the odd or of the even ones of (id + seq).
insert into conversation_participants (conversation_id, user_id, unread_count, last_read_at, created_at, delivered_seq,
    delivered_at, read_seq)
select p.id, u.user_id,
    case when u.is_first then (p.id + p.length + 1) / 2 - (p.id + p.read_seq + 1) / 2
        else (p.id + p.length) / 2 - (p.id + p.read_seq) / 2 end,
    case when p.read_seq > 0 then c.last_message_at end, c.created_at, p.length, c.last_message_at, p.read_seq
from planned p join conversations c on c.id = p.id
cross join lateral (values (p.user1_id, true), (p.user2_id, false)) as u (user_id, is_first)
order by p.id, u.user_id;

-- Only the last :days days are kept in the logs. Both are told of each message and of its delivery, and of every
-- second one that it was read; before that each log had a thousand entries, which are forgotten.
insert into user_events (user_id, event_seq, kind, conversation_id, message_id, payload, created_at)
select user_id, event_seq, kind, conversation_id, case when kind = 1 then id end,
    case when kind > 1 then json_build_object('message_ids', json_build_array(id), 'user_id', user_id,
        case kind when 5 then 'delivered_at' else 'read_at' end,
        to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))::text end,
    created_at
from (
    select u.user_id, 1000 + row_number() over (partition by u.user_id order by m.id, k.kind) as event_seq, k.kind,
        m.conversation_id, m.id, m.created_at
    from messages m join planned p on p.id = m.conversation_id
    cross join lateral (values (p.user1_id), (p.user2_id)) as u (user_id)
    cross join lateral (values (1), (5), (6)) as k (kind)
    where m.created_at > now() - interval '1 day' * :days and (k.kind < 6 or m.is_read and m.seq % 2 = 0)
    order by m.id, u.user_id, k.kind
) e;
insert into user_log_heads (user_id, last_seq) select user_id, max(event_seq) from user_events group by user_id;
insert into user_profiles (id, name, refreshed_at) select n, 'Person ' || n, now() from generate_series(1, :users + :heavy) n;
insert into user_presence (user_id, last_seen) select n, now() from generate_series(1, :users + :heavy) n;
insert into product_cards (id, title, image_urls, price_per_day, owner_id, refreshed_at)
select n, 'Product ' || n, '[]', 12.5, n, now() from generate_series(1, 20000) n;
select setval(pg_get_serial_sequence('messages', 'id'), (select max(id) from messages)),
    setval(pg_get_serial_sequence('conversations', 'id'), (select max(id) from conversations)) \g /dev/null
commit;

begin;
reindex table messages;
reindex table search_chunks;
reindex table user_events;
commit;
vacuum (analyze);
checkpoint;
