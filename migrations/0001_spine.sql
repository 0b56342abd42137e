-- The spine: instance, keys, workspaces, ledgers, sources, destinations, deliveries.
--
-- Three roles meet here. The owner runs this file and owns every table. `statusledger_service` sees one
-- workspace at a time: the one named by the setting `sl.workspace`, set for the transaction. `statusledger_worker`
-- does what works across workspaces (token lookup, planning, claiming) and holds no grant on entry contents.
-- The roles are made before the migrations run: two databases migrating at once cannot both create a role.
--
-- Every row that belongs to a workspace carries `workspace_id` first in its primary key, and row-level security,
-- forced on the owner too, filters on it. Entries and deliveries have no foreign key and no second index:
-- measured, each halves the append.

-- ── The instance: one row, written once ─────────────────────────────────────────────────────────────────────

CREATE TABLE instance (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    name         text NOT NULL CHECK (name ~ '^[a-z0-9.-]{1,253}$'),
    workspace_id uuid NOT NULL,
    ledger_id    uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN instance.workspace_id IS 'The workspace of the instance''s own events (keys, administration).';

-- Private halves, each sealed under the key-encryption key. A destroyed key keeps its row with a null.
CREATE TABLE signing_keys (
    key_id      bytea PRIMARY KEY CHECK (length(key_id) = 32),
    purpose     text NOT NULL CHECK (purpose IN ('root', 'receipt', 'checkpoint')),
    private_key bytea,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Every manifest ever published. The newest is the ring's public truth.
CREATE TABLE key_manifests (
    serial     bigint PRIMARY KEY CHECK (serial > 0),
    document   text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Administrators' tokens, as SHA-256 of the token: a token has 256 random bits, so a slow hash adds nothing.
CREATE TABLE api_tokens (
    token_id   uuid PRIMARY KEY,
    hash       bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- ── Workspaces ──────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE workspaces (
    workspace_id uuid PRIMARY KEY,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    ledger_id    uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN workspaces.name IS 'Not unique: a refusal would tell of another''s.';
COMMENT ON COLUMN workspaces.ledger_id IS 'The ledger that is written to; another only after an accepted loss.';

-- The workspace's data key, wrapped by the key-encryption key.
CREATE TABLE data_keys (
    workspace_id uuid PRIMARY KEY REFERENCES workspaces,
    wrapped_key  bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- ── The ledger ──────────────────────────────────────────────────────────────────────────────────────────────

-- The head of each ledger. Every transaction that writes to a workspace takes this row first.
-- Neither this nor entries has a CHECK: Postgres reads each from its text with every statement, a tenth of a small append.
-- ledger_append looks at what it is given, and whoever verifies looks at everything.
CREATE TABLE heads (
    workspace_id uuid NOT NULL REFERENCES workspaces,
    ledger_id    uuid NOT NULL,
    size         bigint NOT NULL DEFAULT 0,
    leaf         bytea NOT NULL,
    frontier     bytea NOT NULL,
    recorded_at  bigint NOT NULL DEFAULT 0,
    routes       bigint NOT NULL DEFAULT 0,
    closed       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (workspace_id, ledger_id)
) WITH (fillfactor = 50);
COMMENT ON COLUMN heads.leaf IS 'Leaf hash of the last entry; 32 zero bytes while there is none.';
COMMENT ON COLUMN heads.frontier IS 'Roots of the perfect subtrees that cover the ledger, largest first.';
COMMENT ON COLUMN heads.recorded_at IS 'Timestamp of the last entry, in microseconds since 1970.';
COMMENT ON COLUMN heads.routes IS 'Counts the changes of the destinations, and the sources removed: who appends must know them all.';
COMMENT ON COLUMN heads.closed IS 'Nothing is appended any more: entries that were signed are missing (losses says which).';

CREATE TABLE entries (
    workspace_id uuid NOT NULL,
    ledger_id    uuid NOT NULL,
    seq          bigint NOT NULL,
    leaf         bytea NOT NULL,
    type         text NOT NULL,
    entry        text NOT NULL,
    PRIMARY KEY (workspace_id, ledger_id, seq)
);
COMMENT ON COLUMN entries.entry IS 'The canonical JSON, byte for byte: leaf = SHA-256(0x00 || entry).';

-- Sealed values, kept beside the ledger, encrypted under the workspace's data key; the only part that can go.
CREATE TABLE openings (
    workspace_id uuid NOT NULL,
    ledger_id    uuid NOT NULL,
    seq          bigint NOT NULL,
    name         text NOT NULL,
    sealed       bytea NOT NULL,
    PRIMARY KEY (workspace_id, ledger_id, seq, name)
);

-- Node hashes of the tree. Level 0 holds leaf hashes, 256 to a tile, written when a tile is full; level n holds
-- the roots of the full tiles of level n - 1 and grows by one hash at a time.
CREATE TABLE tiles (
    workspace_id uuid NOT NULL,
    ledger_id    uuid NOT NULL,
    level        smallint NOT NULL,
    tile         bigint NOT NULL,
    hashes       bytea NOT NULL CHECK (length(hashes) % 32 = 0 AND length(hashes) <= 8192),
    PRIMARY KEY (workspace_id, ledger_id, level, tile)
);

-- The newest checkpoint signed of each ledger, against which a node checks the head before it serves.
CREATE TABLE checkpoints (
    workspace_id uuid NOT NULL,
    ledger_id    uuid NOT NULL,
    size         bigint NOT NULL,
    root         bytea NOT NULL CHECK (length(root) = 32),
    note         text NOT NULL,
    signed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, ledger_id)
);

-- Ledgers whose history is not the one that was signed, as a node found it: from then on no node appends to them. An
-- accepted loss stays here for good; the mark of a history that came back is taken away.
CREATE TABLE losses (
    workspace_id uuid NOT NULL REFERENCES workspaces,
    ledger_id    uuid NOT NULL,
    size         bigint NOT NULL CHECK (size >= 0),
    root         bytea NOT NULL CHECK (length(root) = 32),
    found_at     timestamptz NOT NULL DEFAULT now(),
    accepted_at  timestamptz,
    continued_by uuid,
    other        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (workspace_id, ledger_id)
);
COMMENT ON COLUMN losses.workspace_id IS 'Whose; the instance''s own, of a ledger that went with its workspace.';
COMMENT ON COLUMN losses.size IS 'The largest tree known to have been signed, with its root.';
COMMENT ON COLUMN losses.other IS 'Of an accepted one: what there is, is not known to be a beginning of what was signed.';
COMMENT ON COLUMN losses.continued_by IS 'The ledger that names this one in its entry 0.';

-- A workspace goes over to another ledger only from one that is closed.
CREATE FUNCTION ledgers_follow_a_loss() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM heads WHERE workspace_id = OLD.workspace_id AND ledger_id = OLD.ledger_id AND closed) THEN
        RAISE EXCEPTION 'the ledger is not closed: no other follows it' USING ERRCODE = 'SL011';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER workspaces_ledger_follows_a_loss BEFORE UPDATE OF ledger_id ON workspaces
    FOR EACH ROW WHEN (NEW.ledger_id <> OLD.ledger_id) EXECUTE FUNCTION ledgers_follow_a_loss();

-- Each serving node, told anew every few seconds, and which timeline of the server it has compared with what it signed:
-- after a promotion none goes on before all have (src/peers.rs).
CREATE TABLE nodes (
    node_id  uuid PRIMARY KEY,
    timeline text NOT NULL,
    seen_at  timestamptz NOT NULL
);
-- How far the self-audit has come in each ledger, and the first row that it found not to agree (src/self_audit). Nothing
-- here is trusted: it says where to go on, and whoever changes it delays a pass at most.
CREATE TABLE self_audits (
    workspace_id uuid NOT NULL REFERENCES workspaces,
    ledger_id    uuid NOT NULL,
    next_seq     bigint NOT NULL DEFAULT 0,
    began_at     timestamptz,
    ended_at     timestamptz,
    found        boolean NOT NULL DEFAULT false,
    finding_seq  bigint,
    finding      text,
    looked_at    timestamptz NOT NULL DEFAULT '-infinity',
    holder       uuid,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (workspace_id, ledger_id)
);
COMMENT ON COLUMN self_audits.began_at IS 'When the pass began; null between two passes.';
COMMENT ON COLUMN self_audits.ended_at IS 'When the last whole pass ended.';
COMMENT ON COLUMN self_audits.found IS 'Whether this pass has found anything.';
COMMENT ON COLUMN self_audits.finding IS 'What is wrong with the first row that does not agree; null where all agrees.';

-- ── Sources and what they said ──────────────────────────────────────────────────────────────────────────────

CREATE TABLE sources (
    workspace_id   uuid NOT NULL REFERENCES workspaces,
    source_id      uuid NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('app_store', 'google_play', 'inbound')),
    name           text NOT NULL CHECK (length(name) BETWEEN 1 AND 140),
    settings       bytea,
    secret         bytea,
    token_hash     bytea CONSTRAINT sources_token_unique UNIQUE,
    health         text NOT NULL DEFAULT 'new',
    health_detail  text,
    last_polled_at timestamptz,
    next_poll_at   timestamptz,
    leased_until   timestamptz NOT NULL DEFAULT '-infinity',
    lease_holder   uuid,
    created_at     timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz,
    PRIMARY KEY (workspace_id, source_id),
    CONSTRAINT sources_name_unique UNIQUE (workspace_id, name)
);

COMMENT ON COLUMN sources.settings IS 'Sealed under the workspace''s data key: an account''s address is a person''s at times. Null once it is deleted.';

CREATE TABLE subjects (
    workspace_id  uuid NOT NULL,
    source_id     uuid NOT NULL,
    kind          text NOT NULL,
    subject_key   text NOT NULL,
    app           text NOT NULL,
    description   jsonb NOT NULL,
    state         text NOT NULL,
    state_since   timestamptz NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at  timestamptz NOT NULL,
    seq           bigint NOT NULL,
    PRIMARY KEY (workspace_id, source_id, kind, subject_key),
    FOREIGN KEY (workspace_id, source_id) REFERENCES sources
);
COMMENT ON COLUMN subjects.seq IS 'The entry that brought the subject to its state.';

CREATE TABLE idempotency_keys (
    workspace_id uuid NOT NULL,
    source_id    uuid NOT NULL,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    body_hash    bytea NOT NULL,
    seq          bigint NOT NULL,
    recorded_at  bigint NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, source_id, key),
    FOREIGN KEY (workspace_id, source_id) REFERENCES sources
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- ── Destinations and deliveries ─────────────────────────────────────────────────────────────────────────────

CREATE TABLE destinations (
    workspace_id       uuid NOT NULL REFERENCES workspaces,
    destination_id     uuid NOT NULL,
    kind               text NOT NULL CHECK (kind = 'webhook'),
    name               text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    url                bytea,
    filter             jsonb NOT NULL DEFAULT '{}',
    openings           boolean NOT NULL DEFAULT true,
    max_in_flight      integer NOT NULL DEFAULT 1 CHECK (max_in_flight BETWEEN 1 AND 256),
    secret             bytea,
    previous_secret    bytea,
    previous_secret_until timestamptz,
    disabled_at        timestamptz,
    disabled_reason    text,
    created_at         timestamptz NOT NULL DEFAULT now(),
    deleted_at         timestamptz,
    PRIMARY KEY (workspace_id, destination_id)
);
COMMENT ON COLUMN destinations.url IS 'Sealed under the workspace''s data key: an address can hold a token. Null once it is deleted.';
COMMENT ON COLUMN destinations.openings IS 'Whether notifications to it carry the openings of sealed values.';
-- Among those that are there: a name is free again when its destination is deleted.
CREATE UNIQUE INDEX destinations_name_unique ON destinations (workspace_id, name) WHERE deleted_at IS NULL;

-- A destination's queue: its receipt numbers, and which node sends. One node at a time holds a lane, which is
-- what keeps attempts in the order of their numbers and the number in flight bounded over all nodes.
CREATE TABLE lanes (
    workspace_id   uuid NOT NULL,
    destination_id uuid NOT NULL,
    last_number    bigint NOT NULL DEFAULT 0,
    forgotten      bigint NOT NULL DEFAULT 0,
    base           bigint,
    sent_through   bigint NOT NULL DEFAULT 0,
    next_retry_at  timestamptz,
    failing_since  timestamptz,
    stopped        boolean NOT NULL DEFAULT false,
    holder         uuid,
    fence          bigint NOT NULL DEFAULT 0,
    leased_until   timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (workspace_id, destination_id),
    FOREIGN KEY (workspace_id, destination_id) REFERENCES destinations
) WITH (fillfactor = 50);
COMMENT ON COLUMN lanes.forgotten IS 'How many settled deliveries the operator''s retention policy has deleted.';
COMMENT ON COLUMN lanes.base IS 'The last number of the ledgers before this one (none: null): a receipt''s number is counted from there.';
COMMENT ON COLUMN lanes.sent_through IS 'Every delivery up to this number has had its first attempt.';
COMMENT ON COLUMN lanes.fence IS 'Rises with every change of holder; a result with an older one is refused.';

-- One entry on its way to one destination. What the receipt says is fixed here, in the transaction that
-- appended the entry, so that the body is a pure function of durable rows.
CREATE TABLE deliveries (
    workspace_id    uuid NOT NULL,
    destination_id  uuid NOT NULL,
    number          bigint NOT NULL,
    ledger_id       uuid NOT NULL,
    seq             bigint NOT NULL,
    receipt_id      uuid NOT NULL,
    issued_at       bigint NOT NULL,
    tree_size       bigint NOT NULL,
    receipt_key     bytea NOT NULL,
    checkpoint_key  bytea NOT NULL,
    receipt_signature    bytea,
    checkpoint_signature bytea,
    state           text NOT NULL DEFAULT 'pending',
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    first_attempt_at timestamptz,
    settled_at      timestamptz,
    base            bigint,
    PRIMARY KEY (workspace_id, destination_id, number)
) WITH (fillfactor = 70);
COMMENT ON COLUMN deliveries.base IS 'lanes.base when it was appended: the receipt says number - base.';
-- Only a retry has a next attempt. The index looks at nothing that a first success changes, so that this stays within
-- the row's page.
CREATE INDEX deliveries_retry ON deliveries (workspace_id, destination_id, next_attempt_at)
 WHERE next_attempt_at IS NOT NULL;

CREATE TABLE attempts (
    workspace_id   uuid NOT NULL,
    destination_id uuid NOT NULL,
    number         bigint NOT NULL,
    attempt        integer NOT NULL,
    started_at     timestamptz NOT NULL,
    duration_us    bigint NOT NULL,
    status         integer,
    error          text,
    answer         bytea,
    PRIMARY KEY (workspace_id, destination_id, number, attempt)
);
COMMENT ON COLUMN attempts.answer IS 'The beginning of what a receiver answered that did not take it; sealed under the workspace''s data key.';

-- ── Entries are only ever inserted ──────────────────────────────────────────────────────────────────────────

CREATE FUNCTION entries_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries are append-only: % is refused', TG_OP USING ERRCODE = 'SL010';
END $$;
CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION entries_are_append_only();

-- Whether this is the server (when it was started), and these are the tables, whose histories the caller has compared with
-- what was signed: refused if not; null compares nothing. A connection may lead to another server than the last one did, also
-- in the middle of a pool's life, and what a node remembers of one history is not to be written to another.
CREATE FUNCTION is_compared(p_server timestamptz, p_tables bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_server <> pg_postmaster_start_time() OR p_tables <> 'public.heads'::regclass::oid::bigint THEN
        RAISE EXCEPTION 'the histories of this server are not compared with what was signed' USING ERRCODE = 'SL005';
    END IF;
    RETURN true;
END $$;

-- ── The only writer ─────────────────────────────────────────────────────────────────────────────────────────

-- Appends a batch in one round trip. The caller has built the entries on the head it knows; if the head, the
-- destinations or the key ring are not what it knew, nothing is written and it reads again:
--   SL001 the head or the destinations have moved, SL003 the key ring has moved,
--   SL004 an idempotency key is taken,
--   SL005 the caller has not compared this server's histories (is_compared),
--   SL006 the ledger lacks entries that were signed, and is closed.
-- p_node is the node that will send, and so takes the lanes that nobody holds; null takes none.
-- Returns, for each destination with deliveries, the number before its first one, and whether this node holds
-- the destination's lane now (and under which fence). A crash before the commit leaves nothing.
-- Each statement is planned once for a connection (Postgres would plan most of them anew for each batch), by keys alone: a plan that
-- was made while a table was small must not read all of it later.
CREATE FUNCTION ledger_append(
    p_workspace uuid, p_ledger uuid, p_size bigint, p_leaf bytea, p_routes bigint,
    p_new_leaf bytea, p_frontier bytea, p_recorded_at bigint,
    p_leaves bytea[], p_types text[], p_entries text[],
    p_opening_seqs bigint[], p_opening_names text[], p_openings bytea[],
    p_node_levels smallint[], p_node_tiles bigint[], p_node_hashes bytea[],
    p_key_sources uuid[], p_keys text[], p_key_hashes bytea[], p_key_seqs bigint[],
    p_destinations uuid[], p_delivery_seqs bigint[], p_receipts uuid[],
    p_serial bigint, p_receipt_key bytea, p_checkpoint_key bytea, p_node uuid,
    p_server timestamptz, p_tables bigint
) RETURNS TABLE (destination_id uuid, before_first bigint, held boolean, fence bigint, sent_through bigint,
                 failing_since timestamptz, base bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_new_size bigint := p_size + cardinality(p_leaves);
    v_taken integer;
    -- What is called for its effect is assigned to something: an expression costs a fraction of PERFORM, which is a query.
    v_compared boolean := is_compared(p_server, p_tables);
    v_workspace text := set_config('sl.workspace', p_workspace::text, true);
    -- Where somebody holds the head for longer, the caller hears it (55P03) and no backend is left waiting for nobody.
    v_patience text := set_config('lock_timeout', '5s', true);
BEGIN
    IF length(p_new_leaf) <> 32 OR length(p_frontier) % 32 <> 0 THEN
        RAISE EXCEPTION 'a head has hashes of 32 bytes' USING ERRCODE = 'check_violation';
    END IF;
    IF cardinality(p_destinations) > 0 THEN
        -- Shared with every append, exclusive to a rotation: no receipt is fixed under a key just retired.
        PERFORM pg_advisory_xact_lock_shared(1397489665);
        IF (SELECT max(serial) FROM key_manifests) IS DISTINCT FROM p_serial THEN
            RAISE EXCEPTION 'the key ring has moved' USING ERRCODE = 'SL003';
        END IF;
    END IF;

    UPDATE heads SET size = v_new_size, leaf = p_new_leaf, frontier = p_frontier, recorded_at = p_recorded_at
     WHERE workspace_id = p_workspace AND ledger_id = p_ledger
       AND size = p_size AND leaf = p_leaf AND routes = p_routes AND NOT closed;
    IF NOT FOUND THEN
        -- Of a ledger that another follows, whoever appends has an old head.
        IF EXISTS (SELECT FROM heads h JOIN workspaces w USING (workspace_id, ledger_id)
                    WHERE h.workspace_id = p_workspace AND h.ledger_id = p_ledger AND h.closed) THEN
            RAISE EXCEPTION 'the ledger lacks entries that were signed' USING ERRCODE = 'SL006';
        END IF;
        RAISE EXCEPTION 'the head has moved' USING ERRCODE = 'SL001';
    END IF;

    IF cardinality(p_keys) > 0 THEN
        INSERT INTO idempotency_keys AS k
            (workspace_id, source_id, key, body_hash, seq, recorded_at, expires_at)
        SELECT p_workspace, source_id, key, body_hash, seq, p_recorded_at, now() + interval '24 hours'
          FROM unnest(p_key_sources, p_keys, p_key_hashes, p_key_seqs) AS u (source_id, key, body_hash, seq)
            ON CONFLICT (workspace_id, source_id, key) DO UPDATE
           SET body_hash = excluded.body_hash, seq = excluded.seq, recorded_at = excluded.recorded_at,
               expires_at = excluded.expires_at
         WHERE k.expires_at <= now();
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        IF v_taken <> cardinality(p_keys) THEN
            RAISE EXCEPTION 'an idempotency key is taken' USING ERRCODE = 'SL004';
        END IF;
    END IF;

    -- In lockstep and without a copy of the rows in between, which FROM unnest (…) would make.
    INSERT INTO entries (workspace_id, ledger_id, seq, leaf, type, entry)
    SELECT p_workspace, p_ledger, generate_series(p_size, v_new_size - 1), unnest(p_leaves), unnest(p_types),
           unnest(p_entries);

    IF cardinality(p_opening_seqs) > 0 THEN
        INSERT INTO openings (workspace_id, ledger_id, seq, name, sealed)
        SELECT p_workspace, p_ledger, seq, name, sealed
          FROM unnest(p_opening_seqs, p_opening_names, p_openings) AS u (seq, name, sealed);
    END IF;

    -- Each tile of leaf hashes that this batch has filled.
    IF v_new_size / 256 > p_size / 256 THEN
        INSERT INTO tiles (workspace_id, ledger_id, level, tile, hashes)
        SELECT p_workspace, p_ledger, 0, seq / 256, string_agg(leaf, ''::bytea ORDER BY seq)
          FROM entries
         WHERE workspace_id = p_workspace AND ledger_id = p_ledger
           AND seq >= p_size / 256 * 256 AND seq < v_new_size / 256 * 256
         GROUP BY seq / 256;
        INSERT INTO tiles AS t (workspace_id, ledger_id, level, tile, hashes)
        SELECT p_workspace, p_ledger, level, tile, string_agg(hash, ''::bytea ORDER BY n)
          FROM unnest(p_node_levels, p_node_tiles, p_node_hashes) WITH ORDINALITY AS u (level, tile, hash, n)
         GROUP BY level, tile
            ON CONFLICT (workspace_id, ledger_id, level, tile) DO UPDATE SET hashes = t.hashes || excluded.hashes;
    END IF;

    IF cardinality(p_destinations) > 0 THEN
        RETURN QUERY
        WITH wanted AS (
            SELECT d AS destination_id, count(*) AS n FROM unnest(p_destinations) AS u (d) GROUP BY d
        ), numbered AS (
            UPDATE lanes l
               SET last_number = l.last_number + w.n,
                   fence = l.fence + CASE WHEN l.holder = p_node AND l.leased_until >= now() THEN 0
                                          WHEN p_node IS NOT NULL AND NOT l.stopped AND l.leased_until < now()
                                          THEN 1 ELSE 0 END,
                   leased_until = CASE WHEN p_node IS NOT NULL AND NOT l.stopped
                                            AND (l.holder = p_node OR l.leased_until < now())
                                       THEN now() + interval '30 seconds' ELSE l.leased_until END,
                   holder = CASE WHEN p_node IS NOT NULL AND NOT l.stopped AND l.leased_until < now()
                                 THEN p_node ELSE l.holder END
              FROM wanted w
             WHERE l.workspace_id = p_workspace AND l.destination_id = w.destination_id
            RETURNING l.destination_id, l.last_number - w.n AS before_first,
                      COALESCE(l.holder = p_node, false) AS held, l.fence, l.sent_through,
                      l.failing_since, l.base
        ), written AS (
            INSERT INTO deliveries (workspace_id, destination_id, number, ledger_id, seq, receipt_id, issued_at,
                                    tree_size, receipt_key, checkpoint_key, base)
            SELECT p_workspace, u.d, n.before_first + row_number() OVER (PARTITION BY u.d ORDER BY u.i),
                   p_ledger, u.seq, u.receipt, p_recorded_at, v_new_size, p_receipt_key, p_checkpoint_key, n.base
              FROM unnest(p_destinations, p_delivery_seqs, p_receipts) WITH ORDINALITY AS u (d, seq, receipt, i)
              JOIN numbered n ON n.destination_id = u.d
            RETURNING 1
        )
        SELECT n.destination_id, n.before_first, n.held, n.fence, n.sent_through, n.failing_since, n.base
          FROM numbered n, (SELECT count(*) FROM written) AS w;
    END IF;
END $$;

-- Batches of several ledgers in one commit, each as by itself: where a head has moved, is closed, is locked by somebody, or one of the
-- batch's idempotency keys is taken, nothing of that batch is written and the others are. Waits for no head, so that two
-- nodes cannot wait for each other, nor anybody for another workspace. What stands at one place of the arrays per ledger
-- is one batch's; of the others, `p_..._each` says how many are each batch's. Leaves are 32 bytes after 32 bytes, types and
-- entries are joined by U+001E, which canonical JSON has not: an array's slice would copy all of it for each.
-- A row for each batch that is written, and one for each of its lanes.
CREATE FUNCTION ledger_append_several(
    p_workspaces uuid[], p_ledgers uuid[], p_sizes bigint[], p_leaf bytea[], p_routes bigint[],
    p_new_leaf bytea[], p_frontiers bytea[], p_recorded_at bigint[],
    p_leaves bytea[], p_types text[], p_entries text[],
    p_openings_each integer[], p_opening_seqs bigint[], p_opening_names text[], p_openings bytea[],
    p_nodes_each integer[], p_node_levels smallint[], p_node_tiles bigint[], p_node_hashes bytea[],
    p_keys_each integer[], p_key_sources uuid[], p_keys text[], p_key_hashes bytea[], p_key_seqs bigint[],
    p_deliveries_each integer[], p_destinations uuid[], p_delivery_seqs bigint[], p_receipts uuid[],
    p_serial bigint, p_receipt_key bytea, p_checkpoint_key bytea, p_node uuid,
    p_server timestamptz, p_tables bigint
) RETURNS TABLE (place integer, destination_id uuid, before_first bigint, held boolean, fence bigint,
                 sent_through bigint, failing_since timestamptz, base bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    b record;
    v_new_size bigint;
    -- Where each batch's part of the shared arrays begins.
    o integer := 1;
    n integer := 1;
    k integer := 1;
    d integer := 1;
    v_compared boolean := is_compared(p_server, p_tables);
    v_workspace text;
    v_patience text := set_config('lock_timeout', '5s', true);
BEGIN
    FOR b IN
        SELECT * FROM unnest(p_workspaces, p_ledgers, p_sizes, p_leaf, p_routes, p_new_leaf, p_frontiers, p_recorded_at,
                             p_leaves, p_types, p_entries, p_openings_each, p_nodes_each, p_keys_each, p_deliveries_each)
                        WITH ORDINALITY
                 AS u (workspace, ledger, size, leaf, routes, new_leaf, frontier, recorded_at, leaves, types, entries,
                       openings, nodes, keys, deliveries, place)
    LOOP
        IF length(b.new_leaf) <> 32 OR length(b.frontier) % 32 <> 0 THEN
            RAISE EXCEPTION 'a head has hashes of 32 bytes' USING ERRCODE = 'check_violation';
        END IF;
        v_workspace := set_config('sl.workspace', b.workspace::text, true);
        v_new_size := b.size + length(b.leaves) / 32;
        IF b.openings + b.keys + b.deliveries = 0 AND v_new_size / 256 = b.size / 256 THEN
            -- What most are, without a call: that would cost as much again.
            UPDATE heads SET size = v_new_size, leaf = b.new_leaf, frontier = b.frontier, recorded_at = b.recorded_at
             WHERE (workspace_id, ledger_id) = (
                       SELECT workspace_id, ledger_id FROM heads
                        WHERE workspace_id = b.workspace AND ledger_id = b.ledger
                          AND size = b.size AND leaf = b.leaf AND routes = b.routes AND NOT closed
                          FOR UPDATE SKIP LOCKED);
            IF FOUND THEN
                INSERT INTO entries (workspace_id, ledger_id, seq, leaf, type, entry)
                SELECT b.workspace, b.ledger, b.size + i, substring(b.leaves FROM i::integer * 32 + 1 FOR 32), type, entry
                  FROM (SELECT generate_series(0, v_new_size - b.size - 1) AS i,
                               unnest(string_to_array(b.types, E'\x1e')) AS type,
                               unnest(string_to_array(b.entries, E'\x1e')) AS entry) AS u;
                place := b.place;
                RETURN NEXT;
            END IF;
            CONTINUE;
        END IF;
        PERFORM FROM heads
          WHERE workspace_id = b.workspace AND ledger_id = b.ledger
            AND size = b.size AND leaf = b.leaf AND routes = b.routes AND NOT closed
            FOR UPDATE SKIP LOCKED;
        IF FOUND AND (b.keys = 0 OR NOT EXISTS (
               SELECT FROM idempotency_keys i
                 JOIN unnest(p_key_sources[k : k + b.keys - 1], p_keys[k : k + b.keys - 1]) AS u (source_id, key)
                   ON i.source_id = u.source_id AND i.key = u.key
                WHERE i.workspace_id = b.workspace AND i.expires_at > now()))
        THEN
            place := b.place;
            RETURN NEXT;
            RETURN QUERY
            SELECT b.place::integer, a.*
              FROM ledger_append(
                b.workspace, b.ledger, b.size, b.leaf, b.routes, b.new_leaf, b.frontier, b.recorded_at,
                ARRAY(SELECT substring(b.leaves FROM i * 32 + 1 FOR 32)
                        FROM generate_series(0, length(b.leaves) / 32 - 1) AS i ORDER BY i),
                string_to_array(b.types, E'\x1e'), string_to_array(b.entries, E'\x1e'),
                p_opening_seqs[o : o + b.openings - 1], p_opening_names[o : o + b.openings - 1],
                p_openings[o : o + b.openings - 1],
                p_node_levels[n : n + b.nodes - 1], p_node_tiles[n : n + b.nodes - 1],
                p_node_hashes[n : n + b.nodes - 1],
                p_key_sources[k : k + b.keys - 1], p_keys[k : k + b.keys - 1], p_key_hashes[k : k + b.keys - 1],
                p_key_seqs[k : k + b.keys - 1],
                p_destinations[d : d + b.deliveries - 1], p_delivery_seqs[d : d + b.deliveries - 1],
                p_receipts[d : d + b.deliveries - 1],
                p_serial, p_receipt_key, p_checkpoint_key, p_node, NULL, NULL) AS a;
        END IF;
        o := o + b.openings;
        n := n + b.nodes;
        k := k + b.keys;
        d := d + b.deliveries;
    END LOOP;
END $$;

-- ── The lanes, as those that work them keep them ────────────────────────────────────────────────────────────

-- Statements over many lanes or deliveries at once, which name them by their keys, are planned once for a connection and by
-- keys alone: a plan that was made while a table was small reads all of it for each key until Postgres analyzes it, a minute
-- in which the renewal of thousands of leases holds up every append.

-- What became of attempts. One whose lane is the node's no more, under that fence, is refused; returns those written.
-- A null next attempt says that the receiver took it.
CREATE FUNCTION attempts_record(
    p_node uuid, p_workspaces uuid[], p_destinations uuid[], p_fences bigint[], p_numbers bigint[],
    p_attempts integer[], p_started timestamptz[], p_durations bigint[], p_statuses integer[], p_errors text[],
    p_answers bytea[], p_next timestamptz[], p_by_receipt bytea[], p_by_checkpoint bytea[],
    p_server timestamptz, p_tables bigint
) RETURNS TABLE (destination_id uuid, number bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_material = off
AS $$
#variable_conflict use_column
DECLARE
    v_compared boolean := is_compared(p_server, p_tables);
BEGIN
    RETURN QUERY
    WITH r AS MATERIALIZED (
        SELECT u.* FROM unnest(p_workspaces, p_destinations, p_fences, p_numbers, p_attempts, p_started,
                               p_durations, p_statuses, p_errors, p_answers, p_next, p_by_receipt, p_by_checkpoint)
               AS u (workspace_id, destination_id, fence, number, attempt, started_at, duration_us, status,
                     error, answer, next_attempt_at, receipt_signature, checkpoint_signature),
             -- No join: a row of the lanes for each, looked up.
             LATERAL (SELECT FROM lanes l
                       WHERE l.workspace_id = u.workspace_id AND l.destination_id = u.destination_id
                         AND l.holder = p_node AND l.fence = u.fence LIMIT 1) AS mine
    ), a AS (
        INSERT INTO attempts (workspace_id, destination_id, number, attempt, started_at, duration_us, status,
                              error, answer)
        SELECT workspace_id, destination_id, number, attempt, started_at, duration_us, status, error, answer
          FROM r ON CONFLICT DO NOTHING
    )
    UPDATE deliveries d
       SET state = CASE WHEN r.next_attempt_at IS NULL THEN 'delivered' ELSE 'retry' END,
           attempts = r.attempt,
           next_attempt_at = r.next_attempt_at,
           receipt_signature = COALESCE(r.receipt_signature, d.receipt_signature),
           checkpoint_signature = COALESCE(r.checkpoint_signature, d.checkpoint_signature),
           first_attempt_at = COALESCE(d.first_attempt_at, r.started_at),
           settled_at = CASE WHEN r.next_attempt_at IS NULL THEN now() END
      FROM r
     WHERE d.workspace_id = r.workspace_id AND d.destination_id = r.destination_id AND d.number = r.number
    RETURNING d.destination_id, d.number;
END $$;

-- Where lanes stand (durable a moment later), but for those that somebody holds locked; returns those looked at.
CREATE FUNCTION lanes_advance(
    p_node uuid, p_workspaces uuid[], p_destinations uuid[], p_fences bigint[], p_through bigint[],
    p_failing timestamptz[], p_server timestamptz, p_tables bigint
) RETURNS TABLE (workspace_id uuid, destination_id uuid)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_compared boolean := is_compared(p_server, p_tables);
    v_soon text := set_config('synchronous_commit', 'off', true);
    v_fence bigint;
    v_through bigint;
    v_failing timestamptz;
BEGIN
    FOR workspace_id, destination_id, v_fence, v_through, v_failing IN
        SELECT u.* FROM unnest(p_workspaces, p_destinations, p_fences, p_through, p_failing)
               AS u (workspace_id, destination_id, fence, sent_through, failing_since),
             LATERAL (SELECT FROM lanes l
                       WHERE l.workspace_id = u.workspace_id AND l.destination_id = u.destination_id
                       LIMIT 1 FOR UPDATE SKIP LOCKED) AS free
    LOOP
        UPDATE lanes l
           SET sent_through = GREATEST(l.sent_through, LEAST(v_through, l.last_number)),
               failing_since = v_failing,
               next_retry_at = (SELECT min(d.next_attempt_at) FROM deliveries d
                                 WHERE d.workspace_id = l.workspace_id AND d.destination_id = l.destination_id
                                   AND d.next_attempt_at IS NOT NULL AND d.state = 'retry')
         WHERE l.workspace_id = lanes_advance.workspace_id AND l.destination_id = lanes_advance.destination_id
           AND l.holder = p_node AND l.fence = v_fence;
        RETURN NEXT;
    END LOOP;
END $$;

-- Renews the leases of a node's lanes, but for those that somebody holds locked.
CREATE FUNCTION lanes_renew(p_node uuid, p_workspaces uuid[], p_destinations uuid[]) RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    v_workspace uuid;
    v_destination uuid;
BEGIN
    FOR v_workspace, v_destination IN
        SELECT u.* FROM unnest(p_workspaces, p_destinations) AS u (workspace_id, destination_id),
             LATERAL (SELECT FROM lanes l
                       WHERE l.workspace_id = u.workspace_id AND l.destination_id = u.destination_id
                         AND l.holder = p_node AND l.leased_until >= now()
                       LIMIT 1 FOR UPDATE SKIP LOCKED) AS mine
    LOOP
        UPDATE lanes l SET leased_until = now() + interval '30 seconds'
         WHERE l.workspace_id = v_workspace AND l.destination_id = v_destination;
    END LOOP;
END $$;

-- Those of the lanes that the node holds and may send for.
CREATE FUNCTION lanes_held(p_node uuid, p_workspaces uuid[], p_destinations uuid[])
RETURNS TABLE (workspace_id uuid, destination_id uuid)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT u.workspace_id, u.destination_id
      FROM unnest(p_workspaces, p_destinations) AS u (workspace_id, destination_id),
           LATERAL (SELECT FROM lanes l
                     WHERE l.workspace_id = u.workspace_id AND l.destination_id = u.destination_id
                       AND l.holder = p_node AND l.leased_until >= now() AND NOT l.stopped LIMIT 1) AS it;
END $$;

-- Lets go of a lane (durable a moment later: what a crash takes back runs out by itself).
CREATE FUNCTION lanes_release(p_workspace uuid, p_destination uuid, p_node uuid, p_fence bigint) RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
    v_soon text := set_config('synchronous_commit', 'off', true);
BEGIN
    UPDATE lanes l SET leased_until = '-infinity'
     WHERE l.workspace_id = p_workspace AND l.destination_id = p_destination
       AND l.holder = p_node AND l.fence = p_fence;
END $$;

-- ── Row-level security ──────────────────────────────────────────────────────────────────────────────────────

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['workspaces', 'data_keys', 'heads', 'entries', 'openings', 'tiles', 'checkpoints',
                             'losses', 'sources', 'subjects', 'idempotency_keys', 'destinations', 'lanes',
                             'deliveries', 'attempts', 'self_audits'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format(
            'CREATE POLICY one_workspace ON %I TO statusledger_service '
            'USING (workspace_id = (SELECT NULLIF(current_setting(''sl.workspace'', true), '''')::uuid))', t);
    END LOOP;
    -- What works across workspaces.
    FOREACH t IN ARRAY ARRAY['workspaces', 'heads', 'checkpoints', 'losses', 'sources', 'idempotency_keys',
                             'lanes', 'deliveries', 'attempts', 'self_audits'] LOOP
        EXECUTE format('CREATE POLICY across_workspaces ON %I TO statusledger_worker USING (true)', t);
    END LOOP;
END $$;

-- ── Grants: only what each role needs ───────────────────────────────────────────────────────────────────────

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO statusledger_service, statusledger_worker;

GRANT EXECUTE ON FUNCTION ledger_append, ledger_append_several TO statusledger_service;
GRANT EXECUTE ON FUNCTION attempts_record, lanes_advance, lanes_renew, lanes_held, lanes_release
      TO statusledger_worker;
GRANT EXECUTE ON FUNCTION is_compared TO statusledger_service, statusledger_worker;
-- So that a node can tell a schema of another version than its own.
GRANT SELECT ON _sqlx_migrations TO statusledger_service;
GRANT SELECT, INSERT ON instance, key_manifests, api_tokens TO statusledger_service;
GRANT SELECT, INSERT, UPDATE (private_key) ON signing_keys TO statusledger_service;
GRANT SELECT, INSERT ON workspaces, data_keys, entries TO statusledger_service;
GRANT UPDATE (name, ledger_id) ON workspaces TO statusledger_service;
GRANT UPDATE (ledger_id) ON instance TO statusledger_service;
GRANT SELECT, INSERT, UPDATE ON heads, tiles, checkpoints TO statusledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON losses, nodes TO statusledger_service;
GRANT SELECT, INSERT, DELETE ON openings TO statusledger_service;
GRANT SELECT, INSERT, UPDATE ON sources, subjects, idempotency_keys TO statusledger_service;
GRANT SELECT, INSERT, UPDATE ON destinations, lanes, deliveries TO statusledger_service;
GRANT SELECT, INSERT ON attempts TO statusledger_service;
-- The operator's retention policy (src/retention.rs).
GRANT DELETE ON deliveries, attempts TO statusledger_service;

GRANT SELECT (workspace_id, ledger_id, created_at) ON workspaces TO statusledger_worker;
GRANT SELECT ON heads, checkpoints, losses, api_tokens, instance, key_manifests TO statusledger_worker;
GRANT SELECT (workspace_id, source_id, kind, token_hash, health, next_poll_at, leased_until, lease_holder, deleted_at),
      UPDATE (next_poll_at, leased_until, lease_holder) ON sources TO statusledger_worker;
GRANT SELECT (workspace_id, source_id, key, expires_at), DELETE ON idempotency_keys TO statusledger_worker;
GRANT SELECT, UPDATE ON lanes TO statusledger_worker;
-- The service, which reads the rows, only says what it found; who looks at what is the worker's.
GRANT SELECT ON self_audits TO statusledger_service;
GRANT SELECT, INSERT, UPDATE ON self_audits TO statusledger_worker;
GRANT SELECT,
      UPDATE (state, attempts, next_attempt_at, first_attempt_at, settled_at, receipt_signature, checkpoint_signature)
      ON deliveries TO statusledger_worker;
GRANT SELECT (workspace_id, destination_id, number, attempt), INSERT ON attempts TO statusledger_worker;
