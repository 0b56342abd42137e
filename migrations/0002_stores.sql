-- What both stores have to say: planned polls, confirmed observations, the stores' own events.

-- ── Subjects ────────────────────────────────────────────────────────────────────────────────────────────────

ALTER TABLE subjects
    -- The app's id in the store: polls of one app are named by it.
    ADD scope         text NOT NULL DEFAULT '',
    -- What else about it is a status (design.md, "observation").
    ADD facts         jsonb NOT NULL DEFAULT '{}',
    -- When it came to this state by the store's clock, where the store told so.
    ADD state_store_at timestamptz,
    -- The state before this one: an answer that goes back to it is confirmed before it is believed.
    ADD previous_state text,
    -- A state that was seen once and waits for its confirmation.
    ADD pending_state text,
    ADD pending_since timestamptz,
    -- Complete listings in a row that it was missing from.
    ADD missing       smallint NOT NULL DEFAULT 0,
    -- When it was no longer visible, confirmed.
    ADD gone_at       timestamptz,
    -- Whether the store is about to change it: its polls are due soon.
    ADD hot           boolean NOT NULL DEFAULT false;

CREATE INDEX subjects_hot ON subjects (workspace_id, source_id) WHERE hot AND gone_at IS NULL;

-- The transitions of each subject, with the window in which each happened: what an event is compared with.
CREATE TABLE transitions (
    workspace_id uuid NOT NULL,
    source_id    uuid NOT NULL,
    kind         text NOT NULL,
    subject_key  text NOT NULL,
    seq          bigint NOT NULL,
    from_state   text,
    to_state     text NOT NULL,
    -- After this, when the old state was last seen; none where no older state was seen at all.
    after_at     timestamptz,
    seen_at      timestamptz NOT NULL,
    -- The store's event that said the same.
    event_id     text,
    PRIMARY KEY (workspace_id, source_id, kind, subject_key, seq),
    FOREIGN KEY (workspace_id, source_id) REFERENCES sources
);

-- The stores' events that were taken, so that none is taken twice.
CREATE TABLE store_events (
    workspace_id uuid NOT NULL,
    source_id    uuid NOT NULL,
    event_id     text NOT NULL CHECK (length(event_id) BETWEEN 1 AND 200),
    received_at  timestamptz NOT NULL DEFAULT now(),
    -- The entry that it became, or that had said it before.
    seq          bigint,
    PRIMARY KEY (workspace_id, source_id, event_id),
    FOREIGN KEY (workspace_id, source_id) REFERENCES sources
);
CREATE INDEX store_events_by_age ON store_events (received_at);

-- ── Planning ────────────────────────────────────────────────────────────────────────────────────────────────

-- Each thing that is asked of a store, and when it is asked next.
CREATE TABLE polls (
    workspace_id uuid NOT NULL,
    source_id    uuid NOT NULL,
    poll         text NOT NULL CHECK (length(poll) BETWEEN 1 AND 300),
    due_at       timestamptz NOT NULL,
    -- When it was last answered.
    answered_at  timestamptz,
    -- What it cost then, in requests.
    requests     integer NOT NULL DEFAULT 1,
    hot          boolean NOT NULL DEFAULT true,
    -- Answers in a row that could not be read.
    failures     integer NOT NULL DEFAULT 0,
    -- Why the store refuses this one, where it refuses this one alone.
    refused      text,
    PRIMARY KEY (workspace_id, source_id, poll),
    FOREIGN KEY (workspace_id, source_id) REFERENCES sources
);

-- Edits of Google Play that may be open: written before an edit is used, so that one is deleted after a crash.
CREATE TABLE play_edits (
    workspace_id uuid NOT NULL,
    source_id    uuid NOT NULL,
    package      text NOT NULL,
    edit_id      text NOT NULL,
    opened_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, source_id, package, edit_id),
    FOREIGN KEY (workspace_id, source_id) REFERENCES sources
);

ALTER TABLE sources
    -- The store's last word on the key's limit, so that a restart does not spend it twice.
    ADD rate_limit     integer,
    ADD rate_remaining integer,
    ADD rate_at        timestamptz,
    -- The secret of the store's own webhooks (sealed).
    ADD webhook_secret bytea,
    -- What the key could read when it was last tried.
    ADD access         jsonb,
    -- By what the key is told from another, without telling anything of it (src/source/key.rs).
    ADD key_fingerprint bytea CHECK (length(key_fingerprint) = 32),
    -- When the key was given.
    ADD key_set_at     timestamptz;

-- ── Row-level security and grants ───────────────────────────────────────────────────────────────────────────

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['transitions', 'store_events', 'polls', 'play_edits'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format(
            'CREATE POLICY one_workspace ON %I TO statusledger_service '
            'USING (workspace_id = (SELECT NULLIF(current_setting(''sl.workspace'', true), '''')::uuid))', t);
    END LOOP;
    CREATE POLICY across_workspaces ON store_events TO statusledger_worker USING (true);
END $$;

REVOKE ALL ON transitions, store_events, polls, play_edits FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE ON transitions, store_events TO statusledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON polls TO statusledger_service;
GRANT SELECT, INSERT, DELETE ON play_edits TO statusledger_service;
GRANT SELECT (workspace_id, source_id, event_id, received_at), DELETE ON store_events TO statusledger_worker;
