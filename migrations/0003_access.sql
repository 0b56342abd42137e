-- People, keys, sessions: who may do what.
--
-- What belongs to a workspace (members, invitations, API keys) is under row-level security like everything of one.
-- People and their sessions belong to the instance: the service sees a person only where they are a member of the
-- workspace that it sees, or one that it has been told to look at (`sl.user`).
--
-- Nothing personal stands here in clear: profiles are sealed under the instance's data key, and looked up by a keyed
-- hash (HMAC-SHA-256) of the address or of the identity provider's subject.

-- Tokens of the first kind carried no authenticated scope; there is no way to give them one.
DROP TABLE api_tokens;

-- Secrets of the instance besides its signing keys, each sealed under the instance's data key.
CREATE TABLE instance_secrets (
    name       text PRIMARY KEY CHECK (name ~ '^[a-z_]{1,40}$'),
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What a node found at its last start: the schema's version, its own settings (without addresses of databases), so
-- that a change of either is put on the record.
CREATE TABLE instance_facts (
    name  text PRIMARY KEY,
    value text NOT NULL
);

-- ── Workspaces ──────────────────────────────────────────────────────────────────────────────────────────────

ALTER TABLE workspaces
    ADD COLUMN passkey_required boolean NOT NULL DEFAULT false,
    ADD COLUMN passkey_required_at timestamptz CHECK (NOT passkey_required OR passkey_required_at IS NOT NULL),
    ADD COLUMN delete_after timestamptz,
    ADD COLUMN deleted_at timestamptz;
COMMENT ON COLUMN workspaces.delete_after IS 'When its secrets and openings are destroyed; null while nobody asked for that.';
COMMENT ON COLUMN workspaces.deleted_at IS 'When they were. Entries stay.';
COMMENT ON COLUMN workspaces.passkey_required IS 'Whether its owners and admins act only in sessions that began with a passkey.';
COMMENT ON COLUMN workspaces.passkey_required_at IS 'Since when, or when that began last. A passkey that came by way of an identity provider after it does not count.';

-- ── People ──────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE users (
    user_id     uuid PRIMARY KEY,
    email_index bytea CONSTRAINT users_email_unique UNIQUE CHECK (length(email_index) = 32),
    profile     bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
COMMENT ON COLUMN users.profile IS 'Sealed: {"email","name"}.';
COMMENT ON COLUMN users.disabled_at IS 'Since when they cannot sign in; what they have made rests until they can again.';

-- How a person is known at an identity provider.
CREATE TABLE identities (
    subject_index bytea PRIMARY KEY CHECK (length(subject_index) = 32),
    identity_id   uuid NOT NULL CONSTRAINT identities_id_unique UNIQUE,
    provider      text NOT NULL CHECK (length(provider) BETWEEN 1 AND 60),
    user_id       uuid NOT NULL REFERENCES users,
    created_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN identities.subject_index IS 'HMAC of issuer and subject: the same person at another issuer is another.';
COMMENT ON COLUMN identities.provider IS 'Its id in the settings, for whoever looks at the list.';
CREATE INDEX identities_user ON identities (user_id);

-- WebAuthn credentials.
CREATE TABLE passkeys (
    passkey_id       uuid PRIMARY KEY,
    credential_index bytea NOT NULL CONSTRAINT passkeys_credential_unique UNIQUE CHECK (length(credential_index) = 32),
    user_id          uuid NOT NULL REFERENCES users,
    sealed           bytea NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    last_used_at     timestamptz,
    provider_since   timestamptz
);
COMMENT ON COLUMN passkeys.provider_since IS
    'When the first of the passkeys that lead to it was added in a session that began at an identity provider; none did: null.';
COMMENT ON COLUMN passkeys.credential_index IS 'HMAC of the credential''s id.';
COMMENT ON COLUMN passkeys.sealed IS 'Sealed: its name, and the credential: public key, counter, policy.';
CREATE INDEX passkeys_user ON passkeys (user_id);

-- A sign-in that has begun: what its answer is checked against. Taken once.
CREATE TABLE sign_ins (
    sign_in_id uuid PRIMARY KEY,
    kind       text NOT NULL,
    sealed     bytea NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sign_ins_expiry ON sign_ins (expires_at);

-- One-time links: the first owner's, and one for whoever has lost every other way in.
CREATE TABLE sign_in_links (
    link_id    uuid PRIMARY KEY,
    hash       bytea NOT NULL CHECK (length(hash) = 32),
    user_id    uuid REFERENCES users,
    first      boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
COMMENT ON COLUMN sign_in_links.user_id IS 'Whom it signs in; none: somebody new, who becomes an owner of the instance.';
COMMENT ON COLUMN sign_in_links.first IS 'Whether it holds only while the instance has no owner.';

CREATE TABLE sessions (
    session_id   uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users,
    hash         bytea NOT NULL CHECK (length(hash) = 32),
    method       text NOT NULL CHECK (method IN ('oidc', 'github', 'passkey', 'link')),
    context      bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    passkey_id   uuid
);
COMMENT ON COLUMN sessions.passkey_id IS 'With which it began, where it did with one. Without a foreign key: the row outlasts the passkey.';
COMMENT ON COLUMN sessions.context IS 'Sealed: {"ip","user_agent"} of the sign-in.';
CREATE INDEX sessions_user ON sessions (user_id);

-- ── Members ─────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE members (
    workspace_id uuid NOT NULL REFERENCES workspaces,
    user_id      uuid NOT NULL,
    role         text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer', 'auditor')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    profile      bytea,
    PRIMARY KEY (workspace_id, user_id)
);
COMMENT ON COLUMN members.profile IS
    'Sealed under the workspace''s data key: {"email"}, the address that the invitation was for by which they came. Nobody has verified it.';
COMMENT ON COLUMN members.user_id IS 'Of users, without a foreign key: no key leaves the workspace.';
CREATE INDEX members_user ON members (user_id);

CREATE TABLE invitations (
    workspace_id  uuid NOT NULL REFERENCES workspaces,
    invitation_id uuid NOT NULL,
    role          text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer', 'auditor')),
    profile       bytea NOT NULL,
    hash          bytea NOT NULL CHECK (length(hash) = 32),
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    claimed_by    uuid,
    accepted_at   timestamptz,
    revoked_at    timestamptz,
    invited_by    uuid,
    invited_key   uuid,
    email_index   bytea NOT NULL CHECK (length(email_index) = 32),
    PRIMARY KEY (workspace_id, invitation_id)
);
COMMENT ON COLUMN invitations.invited_key IS 'The API key that made it, where one did: it holds no longer than that.';
COMMENT ON COLUMN invitations.invited_by IS 'The person behind it, where there is one: while they are disabled it is not accepted.';
COMMENT ON COLUMN invitations.claimed_by IS 'The person who was made for it: nobody else can accept it any more.';
COMMENT ON COLUMN invitations.email_index IS 'HMAC of the address: a second invitation to it replaces the first.';
COMMENT ON COLUMN invitations.profile IS 'Sealed: {"email"}, for whoever looks at the list.';
CREATE UNIQUE INDEX invitations_hash ON invitations (hash);

-- ── API keys ────────────────────────────────────────────────────────────────────────────────────────────────

-- A key has 256 random bits, so SHA-256 is hash enough. Its scopes are authenticated by the key itself.
CREATE TABLE api_keys (
    workspace_id uuid NOT NULL REFERENCES workspaces,
    key_id       uuid NOT NULL CONSTRAINT api_keys_id_unique UNIQUE,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    scopes       text NOT NULL,
    hash         bytea NOT NULL CHECK (length(hash) = 32),
    instance     boolean NOT NULL DEFAULT false,
    created_by   text NOT NULL,
    replaces     uuid,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    person       uuid,
    PRIMARY KEY (workspace_id, key_id)
);
COMMENT ON COLUMN api_keys.person IS 'Who made it, or made the key that made it: while they are disabled, or no member, it opens nothing.';
CREATE INDEX api_keys_person ON api_keys (person) WHERE person IS NOT NULL;
COMMENT ON COLUMN api_keys.instance IS 'Whether it reaches every workspace; only a key of the instance''s own can.';

-- Requests that may be repeated: what was answered to an idempotency key.
CREATE TABLE request_keys (
    workspace_id uuid NOT NULL REFERENCES workspaces,
    caller       text NOT NULL,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash bytea NOT NULL CHECK (length(request_hash) = 32),
    claim        uuid NOT NULL,
    grants       bigint NOT NULL,
    leased_until timestamptz NOT NULL,
    carried_out  boolean NOT NULL DEFAULT false,
    status       smallint,
    answer       bytea,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, caller, key)
);
COMMENT ON COLUMN request_keys.claim IS 'Of the request that holds the key: only that one can say that it is carried out.';
COMMENT ON COLUMN request_keys.grants IS 'What whoever asked might do, as bits: who may do less by now hears no answer.';
COMMENT ON COLUMN request_keys.carried_out IS
    'Set where the change itself is committed. Without a status and beyond leased_until: the answer is lost.';
COMMENT ON COLUMN request_keys.answer IS 'Sealed under the workspace''s data key: it may show a new secret.';
CREATE INDEX request_keys_expiry ON request_keys (expires_at);

-- ── Audit entries, as they are searched ─────────────────────────────────────────────────────────────────────

-- A way to find audit entries, not a record of its own: every column is in the entry, and the entry is what counts.
CREATE TABLE audit_index (
    workspace_id uuid NOT NULL,
    ledger_id    uuid NOT NULL,
    seq          bigint NOT NULL,
    recorded_at  bigint NOT NULL,
    action       text NOT NULL,
    actor        text NOT NULL,
    outcome      text NOT NULL,
    targets      text[] NOT NULL,
    PRIMARY KEY (workspace_id, ledger_id, seq)
);
CREATE INDEX audit_index_actor ON audit_index (workspace_id, ledger_id, actor, seq);
CREATE INDEX audit_index_action ON audit_index (workspace_id, ledger_id, action, seq);
CREATE INDEX audit_index_targets ON audit_index USING gin (targets);

-- ── Row-level security and grants ───────────────────────────────────────────────────────────────────────────

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['members', 'invitations', 'api_keys', 'request_keys', 'audit_index'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format(
            'CREATE POLICY one_workspace ON %I TO statusledger_service '
            'USING (workspace_id = (SELECT NULLIF(current_setting(''sl.workspace'', true), '''')::uuid))', t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['users', 'identities', 'passkeys', 'sessions'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        -- The person that the transaction is about.
        EXECUTE format(
            'CREATE POLICY one_person ON %I TO statusledger_service '
            'USING (user_id = (SELECT NULLIF(current_setting(''sl.user'', true), '''')::uuid))', t);
        -- Sign-in: from what somebody shows to who that is.
        EXECUTE format('CREATE POLICY across_people ON %I TO statusledger_worker USING (true)', t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['members', 'invitations', 'api_keys', 'request_keys'] LOOP
        EXECUTE format('CREATE POLICY across_workspaces ON %I TO statusledger_worker USING (true)', t);
    END LOOP;
END $$;

-- The members of the workspace that the transaction sees are known to it.
CREATE POLICY members_of_the_workspace ON users FOR SELECT TO statusledger_service
    USING (user_id IN (SELECT user_id FROM members));

-- Whoever administers the instance sees everybody, in a transaction that says so.
CREATE POLICY everybody_on_the_instance ON users FOR SELECT TO statusledger_service
    USING ((SELECT current_setting('sl.people', true)) = 'all');

-- A transaction that is about a person and names no workspace sees those that they have a part in, by name and not more.
CREATE POLICY ones_own ON members FOR SELECT TO statusledger_service
    USING ((SELECT NULLIF(current_setting('sl.workspace', true), '')) IS NULL
           AND user_id = (SELECT NULLIF(current_setting('sl.user', true), '')::uuid));
CREATE POLICY ones_own ON workspaces FOR SELECT TO statusledger_service
    USING ((SELECT NULLIF(current_setting('sl.workspace', true), '')) IS NULL
           AND workspace_id IN (SELECT workspace_id FROM members
                                 WHERE user_id = (SELECT NULLIF(current_setting('sl.user', true), '')::uuid)));

-- And whoever administers the instance sees every one, in a transaction that says so.
CREATE POLICY every_one_on_the_instance ON workspaces FOR SELECT TO statusledger_service
    USING ((SELECT current_setting('sl.workspaces', true)) = 'all');

GRANT SELECT, INSERT ON instance_secrets TO statusledger_service;
GRANT SELECT, INSERT, UPDATE ON instance_facts TO statusledger_service;
GRANT UPDATE (name, passkey_required, passkey_required_at, delete_after, deleted_at) ON workspaces TO statusledger_service;
GRANT DELETE ON data_keys TO statusledger_service;
-- What receivers answered can hold anything.
GRANT UPDATE (answer) ON attempts TO statusledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON members, invitations TO statusledger_service;
GRANT SELECT, INSERT, UPDATE ON api_keys TO statusledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON request_keys TO statusledger_service;
GRANT SELECT, INSERT ON audit_index TO statusledger_service;
GRANT SELECT, INSERT, UPDATE ON users, sessions TO statusledger_service;
GRANT SELECT, INSERT, DELETE, UPDATE ON identities, passkeys TO statusledger_service;
GRANT SELECT, INSERT, DELETE ON sign_ins TO statusledger_service;
GRANT SELECT, INSERT, UPDATE ON sign_in_links TO statusledger_service;

GRANT SELECT (passkey_required, passkey_required_at, delete_after, deleted_at) ON workspaces TO statusledger_worker;
GRANT SELECT (user_id, email_index, disabled_at) ON users TO statusledger_worker;
GRANT SELECT ON identities TO statusledger_worker;
GRANT SELECT (workspace_id, user_id, role, created_at) ON members TO statusledger_worker;
GRANT SELECT (passkey_id, credential_index, user_id, provider_since) ON passkeys TO statusledger_worker;
GRANT SELECT (session_id, user_id, hash, method, created_at, last_seen_at, expires_at, ended_at, passkey_id),
      UPDATE (last_seen_at) ON sessions TO statusledger_worker;
GRANT SELECT (workspace_id, invitation_id, role, hash, expires_at, claimed_by, accepted_at, revoked_at, invited_by,
              invited_key)
      ON invitations TO statusledger_worker;
GRANT SELECT (workspace_id, key_id, scopes, hash, instance, expires_at, revoked_at, last_used_at, person),
      UPDATE (last_used_at) ON api_keys TO statusledger_worker;
GRANT SELECT (workspace_id, caller, key, expires_at), DELETE ON request_keys TO statusledger_worker;
GRANT SELECT (sign_in_id, expires_at), DELETE ON sign_ins TO statusledger_worker;
-- What has ended long ago is removed (src/access/ended.rs).
GRANT DELETE ON sessions, invitations TO statusledger_worker;
GRANT SELECT (link_id, expires_at, used_at), DELETE ON sign_in_links TO statusledger_worker;
