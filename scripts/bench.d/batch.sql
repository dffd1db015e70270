-- The service's group commit for :size messages: the same transaction, statement by statement
-- (crates/messaging/src/storage/{postgres,log}.rs), with arrays made here instead of bound.
-- Each client has the conversations of one remainder, as each writer of the service has those of one hash; of the
-- first :conversations ones, :stride apart (1: neighbours, which share pages).
\set first random(0, 1000000)
\set share :conversations / :clients
begin;
select c.id, c.user1_id, c.user2_id, c.last_seq,
    exists (select 1 from blocks b where b.blocker_id = c.user1_id and b.blocked_id = c.user2_id) as user1_blocks,
    exists (select 1 from blocks b where b.blocker_id = c.user2_id and b.blocked_id = c.user1_id) as user2_blocks
from conversations c
where c.id = any(array(
    select distinct 1 + :client_id + :clients * ((:first + g * :stride) % :share) from generate_series(0, :size - 1) as g))
order by c.id for no key update of c;
with rows as (
    select c.id as conversation_id,
        c.last_seq + row_number() over (partition by c.id order by g) as seq,
        case when g % 2 = 0 then c.user1_id else c.user2_id end as sender_id,
        case when g % 2 = 0 then c.user2_id else c.user1_id end as recipient_id,
        format('%s-%s-%s', :client_id::bigint, :first::bigint, g) as client_message_id, g
    from generate_series(0, :size - 1) as g
    join conversations c on c.id = 1 + :client_id + :clients * ((:first + g * :stride) % :share)
), stored as (
    insert into messages (conversation_id, seq, sender_id, content, type, file_url, attachment_id,
        reply_to_id, metadata, offer, client_message_id, fingerprint, created_at, updated_at)
    select conversation_id, seq, sender_id,
        '0000007f 12 4711 123456789012 Hello, is the camera still free next weekend? We w', 'text', null, null,
        null, null, null, client_message_id || '-' || gen_random_uuid(), g, now(), now()
    from rows
    on conflict (sender_id, client_message_id) do nothing
    returning conversation_id, seq, id
), conversations_moved as (
    update conversations c
    set last_seq = b.last_seq, last_message_id = s.id, last_message_at = now(), updated_at = now()
    from (select conversation_id as id, max(seq) as last_seq from rows group by conversation_id) as b
    join stored s on s.conversation_id = b.id and s.seq = b.last_seq
    where c.id = b.id
), participants_moved as (
    update conversation_participants p
    set unread_count = p.unread_count + b.unread, is_archived = false, is_hidden = false
    from (select conversation_id, recipient_id as user_id, count(*) as unread from rows group by 1, 2) as b
    where p.conversation_id = b.conversation_id and p.user_id = b.user_id
)
select conversation_id, seq, id from stored;
with added as (
    select u.user_id, count(*) as added
    from generate_series(0, :size - 1) as g
    join conversations c on c.id = 1 + :client_id + :clients * ((:first + g * :stride) % :share)
    cross join lateral (values (c.user1_id), (c.user2_id)) as u (user_id)
    group by u.user_id
), heads as (
    insert into user_log_heads as h (user_id, last_seq)
    select user_id, added from added order by user_id
    on conflict (user_id) do update set last_seq = h.last_seq + excluded.last_seq
    returning user_id, last_seq
), appended as (
    insert into user_events (user_id, event_seq, kind, conversation_id, message_id, payload, created_at)
    select heads.user_id, heads.last_seq - distance, 1, 1 + :client_id, distance, null, now()
    from heads join added using (user_id), generate_series(0, added.added - 1) as distance
)
select user_id, last_seq from heads;
commit;
