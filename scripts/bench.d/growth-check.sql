-- Whether what growth.sql made is what the service's rules say: prints what is wrong, nothing if all is right.
set work_mem = '512MB';
-- The recount of crates/messaging/src/storage/recount.rs, of all counters at once.
select 'counters of unread messages that are wrong: ' || count(*)
from conversation_participants p
left join (
    select m.conversation_id, m.sender_id, count(*) as unread from messages m
    where not m.is_read and m.deleted_at is null group by 1, 2
) u on u.conversation_id = p.conversation_id and u.sender_id <> p.user_id
where p.unread_count <> coalesce(u.unread, 0)
having count(*) > 0;
select 'conversations whose newest message or place is wrong: ' || count(*)
from conversations c
left join (
    select conversation_id, min(seq) as first, max(seq) as last, count(*) as messages, max(m.id) as newest,
        bool_and(sender_id in (c2.user1_id, c2.user2_id)) as own
    from messages m join conversations c2 on c2.id = m.conversation_id group by 1
) m on m.conversation_id = c.id
where (1, c.last_seq, c.last_seq, c.last_message_id, true)
    is distinct from (m.first, m.last, m.messages, m.newest, m.own)
having count(*) > 0;
select 'conversations without their two participants: ' || count(*)
from conversations c
where (select count(*) from conversation_participants p where p.conversation_id = c.id
    and p.user_id in (c.user1_id, c.user2_id)) <> 2
having count(*) > 0;
select 'conversations whose chunks do not cover them: ' || count(*)
from conversations c
left join (
    select conversation_id, min(first_seq) as first, max(last_seq) as last, sum(last_seq - first_seq + 1) as messages,
        bool_and(array_length(string_to_array(message_ids, ','), 1) = last_seq - first_seq + 1
            and array_length(string_to_array(words, chr(31)), 1) = last_seq - first_seq + 1) as whole
    from search_chunks group by 1
) s on s.conversation_id = c.id
where (1, c.last_seq, c.last_seq, true) is distinct from (s.first, s.last, s.messages, s.whole)
having count(*) > 0;
select 'logs with gaps or a wrong head: ' || count(*)
from user_log_heads h
full join (
    select user_id, max(event_seq) as last, max(event_seq) - min(event_seq) + 1 as span, count(*) as entries
    from user_events group by 1
) e on e.user_id = h.user_id
where (h.last_seq, e.entries) is distinct from (e.last, e.span)
having count(*) > 0;
select 'indexes that are not valid: ' || count(*) from pg_index where not (indisvalid and indisready) having count(*) > 0;
