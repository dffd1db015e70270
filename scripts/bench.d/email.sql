-- A hundred thousand people with two unread messages each, among 1.2 million messages, for a look at the plans of
-- crates/messaging/src/storage/emails.rs (docs/email.md). In the service's own schema, made by `rented-messaging migrate`.
insert into conversations (id, user1_id, user2_id, product_id, created_at, updated_at, last_message_at, last_seq)
select n, n, 1000000 + n, 5, now() - interval '10 days', now(), now(), 12 from generate_series(1, 100000) n;
insert into conversation_participants (conversation_id, user_id, unread_count, created_at, read_seq)
select n, n, 0, now(), 12 from generate_series(1, 100000) n;
insert into conversation_participants (conversation_id, user_id, unread_count, created_at, read_seq)
select n, 1000000 + n, 2, now(), 10 from generate_series(1, 100000) n;
-- Ten that are read, over ten days; then two that are not, within three hours.
insert into messages (conversation_id, seq, sender_id, content, is_read, created_at, updated_at)
select c, s, case when s % 2 = 0 then c else 1000000 + c end, 'Is it still free on Friday afternoon, say at three?', true, t, t
from (select c, s, now() - interval '10 days' + (s * 100000 + c) * interval '0.8 seconds' as t
      from generate_series(1, 10) s, generate_series(1, 100000) c order by 3) x;
insert into messages (conversation_id, seq, sender_id, content, is_read, created_at, updated_at)
select c, s, c, 'Hello again, are you there? I could come by at noon.', false, t, t
from (select c, s, now() - interval '3 hours' + ((s - 11) * 100000 + c) * interval '0.05 seconds' as t
      from generate_series(11, 12) s, generate_series(1, 100000) c order by 3) x;
insert into user_contacts (user_id, email, language, refreshed_at)
select user_id, 'user' || user_id || '@example.test', 'en', now() from conversation_participants;
insert into notification_preferences (user_id, push, email, updated_at)
select user_id, true, user_id % 10 <> 0, now() from conversation_participants where user_id % 2 = 0;
insert into blocks (blocker_id, blocked_id, created_at) select n, 1000000 + n, now() from generate_series(1, 100000, 50) n;
-- Half of them were mailed about the first of the two and have not looked.
insert into email_marks (user_id, conversation_id, mailed_seq, mailed_at)
select 1000000 + n, n, 11, now() from generate_series(1, 100000, 2) n;
vacuum analyze;
