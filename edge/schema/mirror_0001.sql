-- The facts once more, in a file of their own: a damaged outbox costs telemetry, never a fact.
create table stream (
    id integer primary key,
    lane text not null check (lane in ('m', 'a', 't')),
    up_to integer not null,
    reserved_to integer not null            -- no number above this was ever given out
) strict;

create table fact (
    stream integer not null,
    seq integer not null,
    data blob not null,
    primary key (stream, seq)
) strict;

create table meta (
    key text primary key,
    value text not null
) strict, without rowid;
