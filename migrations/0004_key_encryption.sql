-- Which key-encryption key secrets are sealed under, those that AWS KMS keeps, and the replacing of one by another.
--
-- A key-encryption key is named by its id, the eight bytes that stand second in every ciphertext made under it. None
-- of these tables belongs to a workspace, and none holds anything that opens anything: what KMS wrapped, KMS unwraps.

-- The key under which everything is sealed from now on. Whoever seals reads it in the transaction that writes, under a
-- lock that its change waits for: once a change is committed, nothing is written under the old key any more.
ALTER TABLE instance ADD key_encryption_key bytea CHECK (length(key_encryption_key) = 8);
UPDATE instance SET key_encryption_key =
    (SELECT substring(private_key FROM 2 FOR 8) FROM signing_keys WHERE private_key IS NOT NULL
      ORDER BY created_at DESC LIMIT 1);
ALTER TABLE instance ALTER key_encryption_key SET NOT NULL;

-- The keys that lie wrapped here. A key that nothing stands under any more is deleted.
CREATE TABLE key_encryption_keys (
    key_id     bytea PRIMARY KEY CHECK (length(key_id) = 8),
    kms_key    text NOT NULL CHECK (length(kms_key) BETWEEN 1 AND 2048),
    wrapped    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN key_encryption_keys.kms_key IS 'The ARN of the KMS key that wrapped it, for people; nodes go by their settings.';

-- What each serving node holds, told anew every few seconds: a key that some node lacks is not changed over to.
CREATE TABLE key_encryption_holders (
    node_id uuid PRIMARY KEY,
    key_ids bytea[] NOT NULL,
    seen_at timestamptz NOT NULL
);

-- Each replacing of the key. One that is not finished is taken up by the next run of the command.
CREATE TABLE key_encryption_rewraps (
    rewrap_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    old_key      bytea NOT NULL CHECK (length(old_key) = 8),
    new_key      bytea NOT NULL CHECK (length(new_key) = 8),
    data_keys    bigint NOT NULL DEFAULT 0,
    signing_keys bigint NOT NULL DEFAULT 0,
    started_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz
);
COMMENT ON COLUMN key_encryption_rewraps.data_keys IS 'How many were re-wrapped, counted in the transactions that did it.';

REVOKE ALL ON key_encryption_keys, key_encryption_holders, key_encryption_rewraps FROM PUBLIC;
GRANT UPDATE (key_encryption_key) ON instance TO statusledger_service;
GRANT UPDATE (wrapped_key) ON data_keys TO statusledger_service;
GRANT SELECT, INSERT, DELETE ON key_encryption_keys TO statusledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON key_encryption_holders TO statusledger_service;
GRANT SELECT, INSERT, UPDATE (data_keys, signing_keys, finished_at) ON key_encryption_rewraps TO statusledger_service;
