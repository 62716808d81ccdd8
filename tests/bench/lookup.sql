\set n random(0, 999)
SELECT id, status FROM floor.found WHERE number = :n;
