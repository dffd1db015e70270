-- Conversations for pgbench, two users each, in the service's own schema (made by `rented-messaging migrate`).
-- As many as `loadtest flood` has by default.
insert into conversations (user1_id, user2_id, created_at, updated_at)
select 2 * g, 2 * g + 1, now(), now() from generate_series(1, 100) as g;
insert into conversation_participants (conversation_id, user_id, created_at)
select id, user1_id, now() from conversations union all select id, user2_id, now() from conversations;
insert into user_log_heads (user_id, last_seq)
select user1_id, 0 from conversations union all select user2_id, 0 from conversations;
create table if not exists bench_commit (id bigint generated always as identity primary key, value bigint not null);
analyze;
