-- A stream is one lane's numbering in one life of the store; next_seq is dense. Exactly one stream a lane is open.
create table stream (
    id integer primary key,                 -- random, 63 bits
    lane text not null check (lane in ('m', 'a', 't')),
    next_seq integer not null check (next_seq > 0),
    up_to integer not null default 0,       -- the cloud has a receipt out for everything up to here
    contact_seq integer not null default 1, -- next_seq when the cloud last spoke of this stream: what lies below is no news to it
    head blob not null,                     -- hash of the newest fact (32 zero bytes before the first, and for telemetry)
    state text not null check (state in ('open', 'closed', 'forked')),
    crc integer not null                    -- over all of the above: a flipped bit in next_seq would give a number out twice
) strict;
create unique index stream_open on stream (lane) where state = 'open';

-- id sorts by lane, then by age: the lane is in its top bits (edge/outbox/lanes.py), so a lane's records lie together.
create table record (
    id integer primary key,
    stream integer not null references stream (id),
    seq integer not null,
    last integer not null check (last >= seq), -- a tombstone covers seq … last
    kind integer not null,
    samples integer not null,
    data blob not null                      -- the frame as it travels; its CRC32C and its own stream and seq guard the row
) strict;
create unique index record_identity on record (stream, seq);

-- Samples that are safe but not yet in a block.
create table staging (
    id integer primary key,
    cohort integer not null,
    data blob not null,
    crc integer not null                    -- over id, cohort (its content) and data
) strict;

-- What the samples of one block share.
create table cohort (
    id integer primary key,
    device text not null,
    profile text not null,
    profile_version integer not null,
    max_error blob not null,
    boot integer not null,
    source_boot integer not null,
    counted integer not null check (counted in (0, 1)),
    unique (device, profile, profile_version, max_error, boot, source_boot, counted)
) strict;

-- Sample numbers that were seen, as runs: one run for a device that loses nothing.
create table seen_counter (
    device text not null,
    source_boot integer not null,
    used integer not null,                  -- staging id at its last use: the least used is forgotten first
    runs blob not null,                     -- begins with its own CRC32C
    primary key (device, source_boot)
) strict, without rowid;

-- Digests of samples that carry the device's time but no number.
create table seen_digest (
    id integer primary key,
    digest blob not null unique
) strict;

-- Rows that the disk changed or the broker will never take; kept for a person, bounded.
create table quarantine (
    id integer primary key,
    stream integer not null,
    seq integer not null,
    why text not null,
    wall_ms integer not null,
    data blob not null
) strict;

create table meta (
    key text primary key,
    value text not null
) strict, without rowid;
