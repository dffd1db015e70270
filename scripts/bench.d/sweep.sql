-- The sweeper for pushes among 100,000 people who have unread messages: data, and its statements with their plans.
-- For an empty, migrated database: psql -v ON_ERROR_STOP=1 -f scripts/bench.d/sweep.sql "$DATABASE_URL".
-- What each statement is for: crates/messaging/src/storage/sweeps.rs.
\timing off
begin;
insert into conversations (id, user1_id, user2_id, created_at, updated_at, last_seq)
select n, n, 1000000 + n, now() - interval '2 days', now() - interval '1 day', 10 from generate_series(1, 100000) n;
insert into conversation_participants (conversation_id, user_id, unread_count, created_at)
select n, n, 0, now() - interval '2 days' from generate_series(1, 100000) n
union all
select n, 1000000 + n, 10, now() - interval '2 days' from generate_series(1, 100000) n;
-- A million unread messages, most of which were looked at long ago.
insert into messages (conversation_id, seq, sender_id, content, created_at, updated_at)
select 1 + n % 100000, 1 + n / 100000, 1 + n % 100000, 'Is it still free on Friday?', t, t
from (select n, now() - interval '1 day' + n * interval '86 milliseconds' as t from generate_series(0, 999999) n) m;
insert into devices (user_id, token, device_type, created_at, last_used_at)
select 1000000 + n, 'token-' || n, 'android', now(), now() from generate_series(1, 100000) n;
insert into notification_marks (user_id, conversation_id, pushed_seq, pushed_at, is_shown)
select 1000000 + n, n, 10, now(), true from generate_series(1, 100000) n;
insert into notification_sweeps (name, message_id) select 'push', max(id) - 5000 from messages on conflict do nothing;
-- Of the last five thousand one in ten was left behind by a node that died.
update notification_marks set pushed_seq = 9 where conversation_id > 95000 and conversation_id % 10 = 0;
-- And a few dozen claims.
update notification_marks set claim = 1, claimed_at = now() - interval '100 seconds' where conversation_id <= 40;
commit;
analyze;

\echo '--- nothing new: where the walk ends'
prepare walk(bigint, timestamptz, bigint) as
with looked as (select id, created_at from messages where id > $1 order by id limit $3)
select max(id), count(*) from looked
where id < coalesce((select min(id) from looked where created_at > $2), 9223372036854775807);
select max(id) as newest from messages \gset
explain (analyze, buffers) execute walk(:newest, now() - interval '15 seconds', 1000);

\echo '--- a full stretch: where the walk ends'
explain (analyze, buffers) execute walk(:newest - 5000, now() + interval '1 day', 1000);

\echo '--- a full stretch: who may have to be pushed'
prepare find(bigint, bigint, timestamptz) as
select distinct p.user_id, p.conversation_id
from messages m
cross join lateral (select * from conversation_participants q
    where q.conversation_id = m.conversation_id and q.user_id <> m.sender_id limit 1) p
left join notification_marks k
    on k.user_id = p.user_id and k.conversation_id = p.conversation_id
where m.id > $1 and m.id <= $2 and m.created_at > $3 and not m.is_read and m.deleted_at is null
    and m.seq > p.read_seq and m.seq > p.cleared_seq
    and coalesce(k.pushed_seq, 0) < m.seq
    and exists (select 1 from devices d where d.user_id = p.user_id);
explain (analyze, buffers) execute find(:newest - 5000, :newest - 4000, now() - interval '2 days');

\echo '--- claims that lapsed'
prepare lapsed(timestamptz, bigint) as
select user_id, conversation_id from notification_marks
where claimed_at is not null and claimed_at <= $1 order by claimed_at limit $2;
explain (analyze, buffers) execute lapsed(now() - interval '90 seconds', 256);
