-- Requests for scripts/growth, as curl's configuration: :'kind' (tokens, unread, list, history, search, search_all,
-- sync), at most :samples of them, of ordinary or heavy users (:'class'), to :'url'. Spread over the whole history, the
-- same in each run; no two alike, so that nothing is answered from the service's caches.
with people as (
    select :users + n as user_id, n from generate_series(1, :heavy) n where :'class' = 'heavy'
    union all
    -- 7919 is a prime that divides none of the numbers of users.
    select 1 + n * 7919 % :users, n from generate_series(1, :samples) n where :'class' = 'ordinary'
), places as (
    select p.user_id, p.n, c.id, c.last_seq
    from people p cross join lateral (
        select c.id, c.last_seq from conversation_participants q join conversations c on c.id = q.conversation_id
        where q.user_id = p.user_id order by c.last_seq desc, hashint8(c.id)
        limit case when :'class' = 'heavy' then :samples / greatest(:heavy, 1) else 1 end
    ) c
), wanted as (
    select user_id, n, case :'kind'
        when 'tokens' then '/api/blocks'
        when 'unread' then '/api/conversations/unread/count'
        when 'list' then '/api/conversations'
        when 'search_all' then '/api/messages/search?query=batteries'
    end as path
    from people where :'kind' in ('tokens', 'unread', 'list', 'search_all')
    union all
    -- A number of which there is one, or none: everything that the user may see is looked through.
    select user_id, n, '/api/messages/search?query=SN-' || n || '007' from people where :'kind' = 'search_rare'
    union all
    select user_id, n, '/api/conversations/' || id || '/messages' from places where :'kind' = 'history'
    union all
    select user_id, n, '/api/messages/search?query=batteries&conversation_id=' || id from places where :'kind' = 'search'
    union all
    select h.user_id, h.user_id, '/api/sync?since=' || greatest(1000, h.last_seq - 100)
    from (select * from user_log_heads h where (h.user_id > :users) = (:'class' = 'heavy')
        order by hashint8(user_id) limit :samples) h
    where :'kind' = 'sync'
)
-- A block for each, on one connection.
select format(E'url = "%s%s"\nheader = "Authorization: Bearer user-%s"\noutput = "/dev/null"\nwrite-out = "%%{http_code} %%{time_total}\\n"\nnext',
    :'url', path, user_id)
from wanted order by hashint8(n), path;
