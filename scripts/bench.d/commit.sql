-- The least that a durable write costs: one row, one commit, one client.
\set value random(1, 1000000)
insert into bench_commit (value) values (:value);
