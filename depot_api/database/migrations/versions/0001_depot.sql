-- The whole model of the depot. Runs as the owner role; the service's role owns nothing of it.

-- Types -------------------------------------------------------------------------------------------------------------

CREATE TYPE studio_role AS ENUM ('viewer', 'editor', 'admin');
-- Ascending, so that `role >= 'lead'` means "a lead and above".
CREATE TYPE project_role AS ENUM ('viewer', 'reviewer', 'contributor', 'lead', 'manager', 'owner');
CREATE TYPE project_status AS ENUM ('planning', 'active', 'on_hold', 'archived');
CREATE TYPE token_scope AS ENUM ('read', 'write', 'admin');
CREATE TYPE changelist_status AS ENUM ('open', 'pending_review', 'submitted', 'abandoned');
CREATE TYPE item_action AS ENUM ('add', 'edit', 'delete', 'move', 'integrate');
CREATE TYPE validation_status AS ENUM ('pending', 'passed', 'failed');
CREATE TYPE review_verdict AS ENUM ('pending', 'approved', 'changes_requested');
CREATE TYPE merge_status AS ENUM ('pending', 'merged', 'conflicted', 'cancelled');
CREATE TYPE merge_job_type AS ENUM ('auto_integrate', 'conflict_staging', 'submit_gate');
CREATE TYPE merge_job_status AS ENUM ('queued', 'running', 'staged', 'completed', 'failed');
CREATE TYPE conflict_resolution AS ENUM ('source', 'target', 'supplied');

CREATE DOMAIN sha256 AS bytea CHECK (octet_length(VALUE) = 32);

-- The same rules as depot_api/paths.py, which words them for people. A path must be writable on every artist's system.
CREATE DOMAIN depot_path AS text
    CHECK (octet_length(VALUE) BETWEEN 1 AND 1024)
    CHECK (VALUE !~ '(^|/)\.{0,2}(/|$)')
    CHECK (VALUE !~ '[\x01-\x1f\x7f\\:*?"<>|]')
    CHECK (VALUE !~ '[. ](/|$)')
    CHECK (VALUE !~* '(^|/)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.[^/]*)?(/|$)');

-- UUID version 7 (RFC 9562): new rows land at the right edge of their index. PostgreSQL has uuidv7() only from 18.
CREATE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE SET search_path = pg_catalog AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid
$$;

-- Tables ------------------------------------------------------------------------------------------------------------

CREATE TABLE users (
    id            uuid PRIMARY KEY DEFAULT uuid_v7(),
    username      text NOT NULL CHECK (username ~ '^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$'),
    display_name  text NOT NULL DEFAULT '',
    password_hash text,
    studio_role   studio_role NOT NULL DEFAULT 'viewer',
    is_active     boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_username ON users (lower(username));

CREATE TABLE api_tokens (
    id           uuid PRIMARY KEY DEFAULT uuid_v7(),
    user_id      uuid NOT NULL REFERENCES users,
    name         text NOT NULL,
    token_sha256 sha256 NOT NULL UNIQUE,
    scope        token_scope NOT NULL,
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX api_tokens_user ON api_tokens (user_id);

-- Failed sign-ins per account and per address; what is stored is a hash of either.
CREATE TABLE login_failures (
    subject_sha256 sha256 PRIMARY KEY,
    failures       integer NOT NULL,
    last_failed_at timestamptz NOT NULL
);

CREATE TABLE projects (
    id                uuid PRIMARY KEY DEFAULT uuid_v7(),
    name              text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    description       text NOT NULL DEFAULT '',
    status            project_status NOT NULL DEFAULT 'active',
    quota_bytes       bigint CHECK (quota_bytes > 0),
    default_branch_id uuid,
    created_by        uuid NOT NULL REFERENCES users,
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX projects_name ON projects (lower(name));

-- Apart from projects, so that a submit locks a counter and not the project's row.
CREATE TABLE changelist_counters (
    project_id uuid PRIMARY KEY REFERENCES projects,
    last_no    bigint NOT NULL DEFAULT 0
);

CREATE TABLE project_members (
    project_id uuid NOT NULL REFERENCES projects,
    user_id    uuid NOT NULL REFERENCES users,
    role       project_role NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, user_id)
);
CREATE INDEX project_members_user ON project_members (user_id, project_id);

-- What the blob store verified when it wrote: the record that is checked before "already have it" is answered.
CREATE TABLE blobs (
    sha256       sha256 PRIMARY KEY,
    size_bytes   bigint NOT NULL CHECK (size_bytes >= 0),
    stored_bytes bigint NOT NULL CHECK (stored_bytes > 0),
    stored_crc32 bigint NOT NULL CHECK (stored_crc32 BETWEEN 0 AND 4294967295),
    verified_at  timestamptz NOT NULL DEFAULT now()
);

-- The content that a project's history refers to.
CREATE TABLE project_blobs (
    project_id    uuid NOT NULL REFERENCES projects,
    sha256        sha256 NOT NULL REFERENCES blobs,
    referenced_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, sha256)
);
CREATE INDEX project_blobs_sha256 ON project_blobs (sha256);

-- Proof of possession: this user sent these bytes to this project.
CREATE TABLE upload_receipts (
    project_id  uuid NOT NULL REFERENCES projects,
    user_id     uuid NOT NULL REFERENCES users,
    sha256      sha256 NOT NULL REFERENCES blobs,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, user_id, sha256)
);
CREATE INDEX upload_receipts_sha256 ON upload_receipts (sha256);

CREATE TABLE branches (
    id                 uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id         uuid NOT NULL REFERENCES projects,
    name               text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$'),
    description        text NOT NULL DEFAULT '',
    parent_id          uuid REFERENCES branches,
    parent_at          bigint CHECK (parent_at >= 0),
    head_no            bigint NOT NULL DEFAULT 0,
    submit_role        project_role NOT NULL DEFAULT 'contributor' CHECK (submit_role >= 'contributor'),
    require_review     boolean NOT NULL DEFAULT false,
    require_validation boolean NOT NULL DEFAULT false,
    created_by         uuid NOT NULL REFERENCES users,
    created_at         timestamptz NOT NULL DEFAULT now(),
    CHECK ((parent_id IS NULL) = (parent_at IS NULL))
);
CREATE UNIQUE INDEX branches_name ON branches (project_id, lower(name));
CREATE INDEX branches_parent ON branches (parent_id);
ALTER TABLE projects ADD FOREIGN KEY (default_branch_id) REFERENCES branches;

-- A branch's ancestors, itself at depth 0, each with the changelist up to which the branch sees it.
CREATE TABLE branch_lineage (
    project_id  uuid NOT NULL REFERENCES projects,
    branch_id   uuid NOT NULL REFERENCES branches,
    depth       integer NOT NULL CHECK (depth >= 0),
    ancestor_id uuid NOT NULL REFERENCES branches,
    upto_no     bigint NOT NULL,
    PRIMARY KEY (branch_id, depth)
);
CREATE INDEX branch_lineage_ancestor ON branch_lineage (ancestor_id);

CREATE TABLE changelists (
    id           uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id   uuid NOT NULL REFERENCES projects,
    branch_id    uuid REFERENCES branches,
    author_id    uuid NOT NULL REFERENCES users,
    status       changelist_status NOT NULL DEFAULT 'open',
    number       bigint,
    description  text NOT NULL DEFAULT '',
    revision     bigint NOT NULL DEFAULT 1,
    items_count  integer NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    submitted_at timestamptz,
    UNIQUE (project_id, number),
    CHECK ((status = 'submitted') = (number IS NOT NULL)),
    CHECK ((status = 'submitted') = (submitted_at IS NOT NULL)),
    CHECK (status <> 'submitted' OR (branch_id IS NOT NULL AND items_count > 0))
);
CREATE INDEX changelists_project ON changelists (project_id, id);
CREATE INDEX changelists_branch ON changelists (branch_id, id);
CREATE INDEX changelists_author ON changelists (author_id, id);

CREATE TABLE changelist_items (
    project_id        uuid NOT NULL REFERENCES projects,
    changelist_id     uuid NOT NULL REFERENCES changelists,
    path_key          text COLLATE "C" NOT NULL,
    path              depot_path NOT NULL,
    action            item_action NOT NULL,
    base_version      integer CHECK (base_version > 0),
    sha256            sha256,
    moved_from        depot_path,
    moved_from_key    text COLLATE "C",
    validation        validation_status NOT NULL DEFAULT 'pending',
    validation_report jsonb,
    PRIMARY KEY (changelist_id, path_key),
    CHECK ((action = 'delete') = (sha256 IS NULL)),
    CHECK ((action = 'add') = (base_version IS NULL) OR action = 'integrate'),
    CHECK ((action = 'move') = (moved_from IS NOT NULL)),
    CHECK ((moved_from IS NULL) = (moved_from_key IS NULL))
);

-- An asset is a path. Its identity outlives deletion, so its version numbers are never used twice.
CREATE TABLE assets (
    id           uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id   uuid NOT NULL REFERENCES projects,
    path_key     text COLLATE "C" NOT NULL,
    path         depot_path NOT NULL,
    asset_type   text NOT NULL DEFAULT '',
    tags         text[] NOT NULL DEFAULT '{}',
    metadata     jsonb NOT NULL DEFAULT '{}',
    last_version integer NOT NULL DEFAULT 0,
    created_by   uuid NOT NULL REFERENCES users,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, path_key)
);

CREATE TABLE asset_versions (
    project_id    uuid NOT NULL REFERENCES projects,
    asset_id      uuid NOT NULL REFERENCES assets,
    number        integer NOT NULL CHECK (number > 0),
    sha256        sha256 NOT NULL REFERENCES blobs,
    size_bytes    bigint NOT NULL,
    action        item_action NOT NULL,
    branch_id     uuid NOT NULL REFERENCES branches,
    changelist_id uuid NOT NULL REFERENCES changelists,
    changelist_no bigint NOT NULL,
    author_id     uuid NOT NULL REFERENCES users,
    moved_from    depot_path,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (asset_id, number)
);
CREATE INDEX asset_versions_changelist ON asset_versions (changelist_id);
CREATE INDEX asset_versions_sha256 ON asset_versions (project_id, sha256);

-- Temporal heads: rows are only ever inserted; a deletion is a row without a version. The head of a path on a branch
-- as of N is, by lineage depth, the newest row at or below N: one index descent per ancestor.
CREATE TABLE branch_heads (
    project_id uuid NOT NULL REFERENCES projects,
    branch_id  uuid NOT NULL REFERENCES branches,
    path_key   text COLLATE "C" NOT NULL,
    from_no    bigint NOT NULL,
    path       depot_path NOT NULL,
    asset_id   uuid NOT NULL REFERENCES assets,
    version    integer,
    sha256     sha256,
    size_bytes bigint,
    CHECK ((version IS NULL) = (sha256 IS NULL) AND (version IS NULL) = (size_bytes IS NULL))
);
-- Descending, so that the newest rows of all paths in path order are one index scan: a manifest needs no sort.
CREATE UNIQUE INDEX branch_heads_newest ON branch_heads (branch_id, path_key, from_no DESC);
CREATE INDEX branch_heads_from_no ON branch_heads (branch_id, from_no);

CREATE TABLE labels (
    project_id uuid NOT NULL REFERENCES projects,
    name       text NOT NULL,
    branch_id  uuid NOT NULL REFERENCES branches,
    at_no      bigint NOT NULL,
    created_by uuid NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, name)
);

CREATE TABLE workspaces (
    id         uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id uuid NOT NULL REFERENCES projects,
    branch_id  uuid NOT NULL REFERENCES branches,
    owner_id   uuid NOT NULL REFERENCES users,
    name       text NOT NULL,
    include    text[] NOT NULL DEFAULT '{}',
    exclude    text[] NOT NULL DEFAULT '{}',
    at_no      bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, owner_id, name)
);

-- The have-list: which version of each path a workspace holds.
CREATE TABLE workspace_files (
    project_id   uuid NOT NULL REFERENCES projects,
    workspace_id uuid NOT NULL REFERENCES workspaces,
    path_key     text COLLATE "C" NOT NULL,
    path         depot_path NOT NULL,
    asset_id     uuid NOT NULL REFERENCES assets,
    version      integer NOT NULL,
    PRIMARY KEY (workspace_id, path_key)
);

CREATE SEQUENCE lock_fencing_numbers;
CREATE TABLE locks (
    id             uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id     uuid NOT NULL REFERENCES projects,
    path_key       text COLLATE "C" NOT NULL,
    path           depot_path NOT NULL,
    holder_id      uuid NOT NULL REFERENCES users,
    base_version   integer,
    fencing_number bigint NOT NULL DEFAULT nextval('lock_fencing_numbers'),
    acquired_at    timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL,
    UNIQUE (project_id, path_key)
);

CREATE TABLE shelves (
    id            uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id    uuid NOT NULL REFERENCES projects,
    branch_id     uuid NOT NULL REFERENCES branches,
    owner_id      uuid NOT NULL REFERENCES users,
    changelist_id uuid REFERENCES changelists,
    description   text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shelf_items (
    project_id   uuid NOT NULL REFERENCES projects,
    shelf_id     uuid NOT NULL REFERENCES shelves ON DELETE CASCADE,
    path_key     text COLLATE "C" NOT NULL,
    path         depot_path NOT NULL,
    action       item_action NOT NULL,
    base_version integer,
    sha256       sha256 REFERENCES blobs,
    PRIMARY KEY (shelf_id, path_key),
    CHECK ((action = 'delete') = (sha256 IS NULL))
);
CREATE INDEX shelf_items_sha256 ON shelf_items (sha256);

CREATE TABLE reviews (
    id            uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id    uuid NOT NULL REFERENCES projects,
    changelist_id uuid NOT NULL REFERENCES changelists,
    reviewer_id   uuid NOT NULL REFERENCES users,
    verdict       review_verdict NOT NULL DEFAULT 'pending',
    comment       text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (changelist_id, reviewer_id)
);

CREATE TABLE branch_merges (
    id               uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id       uuid NOT NULL REFERENCES projects,
    source_branch_id uuid NOT NULL REFERENCES branches,
    target_branch_id uuid NOT NULL REFERENCES branches,
    source_at        bigint NOT NULL,
    status           merge_status NOT NULL DEFAULT 'pending',
    changelist_id    uuid REFERENCES changelists,
    created_by       uuid NOT NULL REFERENCES users,
    created_at       timestamptz NOT NULL DEFAULT now(),
    completed_at     timestamptz,
    CHECK (source_branch_id <> target_branch_id),
    CHECK ((status = 'merged') = (completed_at IS NOT NULL))
);
CREATE INDEX branch_merges_project ON branch_merges (project_id, status);

CREATE TABLE merge_conflicts (
    id             uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id     uuid NOT NULL REFERENCES projects,
    merge_id       uuid NOT NULL REFERENCES branch_merges,
    path_key       text COLLATE "C" NOT NULL,
    path           depot_path NOT NULL,
    base_version   integer,
    source_version integer,
    target_version integer,
    resolution     conflict_resolution,
    resolved_by    uuid REFERENCES users,
    resolved_at    timestamptz,
    reason         text NOT NULL DEFAULT '',
    UNIQUE (merge_id, path_key),
    CHECK ((resolution IS NULL) = (resolved_at IS NULL) AND (resolution IS NULL) = (resolved_by IS NULL))
);

CREATE TABLE merge_jobs (
    id                 uuid PRIMARY KEY DEFAULT uuid_v7(),
    project_id         uuid NOT NULL REFERENCES projects,
    merge_id           uuid NOT NULL REFERENCES branch_merges,
    job_type           merge_job_type NOT NULL,
    status             merge_job_status NOT NULL DEFAULT 'queued',
    submit_gate_passed boolean NOT NULL DEFAULT false,
    attempt            integer NOT NULL DEFAULT 0,
    fencing_number     bigint NOT NULL DEFAULT 0,
    leased_until       timestamptz,
    result             jsonb,
    created_at         timestamptz NOT NULL DEFAULT now(),
    CHECK (NOT submit_gate_passed OR job_type = 'submit_gate')
);
CREATE INDEX merge_jobs_merge ON merge_jobs (merge_id);
CREATE INDEX merge_jobs_open ON merge_jobs (created_at) WHERE status IN ('queued', 'running', 'staged');

-- The outbox. Read by cursor (xact_id, id) and only below pg_snapshot_xmin(pg_current_snapshot()): identity numbers are
-- given before commit, so a reader that went by them alone would skip a slower transaction's events.
CREATE TABLE events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xact_id    xid8 NOT NULL DEFAULT pg_current_xact_id(),
    project_id uuid NOT NULL REFERENCES projects,
    kind       text NOT NULL,
    actor_id   uuid NOT NULL REFERENCES users,
    payload    jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX events_cursor ON events (xact_id, id);
CREATE INDEX events_project ON events (project_id, xact_id, id);

CREATE TABLE audit_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id  uuid,
    table_name  text NOT NULL,
    operation   text NOT NULL,
    actor_id    uuid,
    request_id  text,
    before      jsonb,
    after       jsonb,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_log_project ON audit_log (project_id, id);

CREATE TABLE idempotency_keys (
    user_id        uuid NOT NULL REFERENCES users,
    key            text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    request_sha256 sha256 NOT NULL,
    response       jsonb,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);

-- The head of a path on a branch as of a changelist; no row where the path never was. Inlined by the planner.
CREATE FUNCTION branch_head(branch uuid, key text, at_no bigint DEFAULT 9223372036854775807)
RETURNS SETOF branch_heads LANGUAGE sql STABLE AS $$
    SELECT h.* FROM branch_lineage l
    CROSS JOIN LATERAL (
        SELECT * FROM branch_heads b
        WHERE b.branch_id = l.ancestor_id AND b.path_key = key AND b.from_no <= least(l.upto_no, at_no)
        ORDER BY b.from_no DESC LIMIT 1
    ) h
    WHERE l.branch_id = branch ORDER BY l.depth LIMIT 1
$$;

-- Identity ----------------------------------------------------------------------------------------------------------
-- SECURITY DEFINER with a fixed search_path: they read memberships past the policies that they serve, so that no policy
-- recurses into itself.

CREATE FUNCTION app_user_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog AS $$
    SELECT nullif(current_setting('app.current_user_id', true), '')::uuid
$$;

-- Begins every transaction of the service. Checked against users each time: a deactivated account is out at once.
CREATE FUNCTION set_app_user(user_id uuid, request_id text DEFAULT '') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM users u WHERE u.id = user_id AND u.is_active) THEN
        RAISE EXCEPTION 'no active user %', user_id USING ERRCODE = 'invalid_authorization_specification';
    END IF;
    PERFORM set_config('app.current_user_id', user_id::text, true), set_config('app.request_id', request_id, true);
END $$;

CREATE FUNCTION app_user_is_admin() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT EXISTS (SELECT FROM users WHERE id = app_user_id() AND is_active AND studio_role = 'admin')
$$;

CREATE FUNCTION my_projects(minimum project_role DEFAULT 'viewer') RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT coalesce(CASE WHEN app_user_is_admin()
        THEN (SELECT array_agg(id) FROM projects)
        ELSE (SELECT array_agg(project_id) FROM project_members WHERE user_id = app_user_id() AND role >= minimum)
    END, '{}')
$$;

-- An archived project refuses every write here, whatever the route.
CREATE FUNCTION writable_projects(minimum project_role) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT coalesce(array_agg(id), '{}') FROM projects WHERE id = ANY (my_projects(minimum)) AND status <> 'archived'
$$;

-- Signing in happens before there is an identity: these are the only doors, and each shows one row.
CREATE FUNCTION sign_in_user(name text)
RETURNS TABLE (id uuid, password_hash text, is_active boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT u.id, u.password_hash, u.is_active FROM users u WHERE lower(u.username) = lower(name)
$$;

CREATE FUNCTION sign_in_token(hash bytea) RETURNS TABLE (user_id uuid, scope token_scope)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT t.user_id, t.scope FROM api_tokens t
    WHERE t.token_sha256 = hash AND t.revoked_at IS NULL AND t.expires_at > now()
$$;

-- Seconds that a subject must still wait: nothing for 5 failures, then 2, 4, 8 … up to 900; forgotten after a day.
CREATE FUNCTION sign_in_wait_seconds(subjects bytea[]) RETURNS double precision
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT coalesce(max(extract(epoch FROM last_failed_at - now())
        + CASE WHEN failures < 5 THEN 0 ELSE least(900, 2 ^ least(failures - 4, 10)) END), 0)
    FROM login_failures WHERE subject_sha256 = ANY (subjects) AND last_failed_at > now() - interval '1 day'
$$;

CREATE FUNCTION sign_in_failed(subjects bytea[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    INSERT INTO login_failures SELECT s, 1, now() FROM unnest(subjects) s ORDER BY s
    ON CONFLICT (subject_sha256) DO UPDATE SET last_failed_at = now(), failures =
        CASE WHEN login_failures.last_failed_at > now() - interval '1 day' THEN login_failures.failures + 1 ELSE 1 END
$$;

CREATE FUNCTION sign_in_succeeded(subjects bytea[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    DELETE FROM login_failures WHERE subject_sha256 = ANY (subjects)
$$;

-- Writes that need more than their caller's rights -------------------------------------------------------------------

-- A project comes with its counter, its first branch and its creator as owner, or not at all.
CREATE FUNCTION create_project(project_name text, project_description text) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    creator uuid := app_user_id();
    project uuid := uuid_v7();
    main_branch uuid := uuid_v7();
BEGIN
    IF NOT EXISTS (SELECT FROM users WHERE id = creator AND studio_role >= 'editor') THEN
        RAISE EXCEPTION 'only editors and admins create projects' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO projects (id, name, description, created_by)
        VALUES (project, project_name, project_description, creator);
    INSERT INTO changelist_counters (project_id) VALUES (project);
    INSERT INTO project_members (project_id, user_id, role) VALUES (project, creator, 'owner');
    INSERT INTO branches (id, project_id, name, created_by) VALUES (main_branch, project, 'main', creator);
    UPDATE projects SET default_branch_id = main_branch WHERE id = project;
    RETURN project;
END $$;

-- The one door through which the service records content, after the store made it durable.
CREATE FUNCTION record_blobs(project uuid, hashes bytea[], sizes bigint[], stored bigint[], crcs bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF project <> ALL (writable_projects('contributor')) THEN
        RAISE EXCEPTION 'not a contributor' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- In hash order, so that two uploads of the same content wait for each other instead of deadlocking.
    INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32)
        SELECT DISTINCT ON (1) * FROM unnest(hashes, sizes, stored, crcs) ORDER BY 1
        ON CONFLICT (sha256) DO UPDATE SET stored_bytes = excluded.stored_bytes,
            stored_crc32 = excluded.stored_crc32, verified_at = now();
    INSERT INTO upload_receipts (project_id, user_id, sha256)
        SELECT DISTINCT project, app_user_id(), h FROM unnest(hashes) h ORDER BY 3
        ON CONFLICT (project_id, user_id, sha256) DO UPDATE SET received_at = now();
END $$;

-- Rules that hold whoever writes -------------------------------------------------------------------------------------

CREATE FUNCTION record_lineage() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    INSERT INTO branch_lineage (project_id, branch_id, depth, ancestor_id, upto_no)
        VALUES (NEW.project_id, NEW.id, 0, NEW.id, 9223372036854775807);
    INSERT INTO branch_lineage (project_id, branch_id, depth, ancestor_id, upto_no)
        SELECT NEW.project_id, NEW.id, depth + 1, ancestor_id, least(upto_no, NEW.parent_at)
        FROM branch_lineage WHERE branch_id = NEW.parent_id AND project_id = NEW.project_id;
    IF NEW.parent_id IS NOT NULL AND NOT FOUND THEN
        RAISE EXCEPTION 'the parent branch is in another project' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER record_lineage AFTER INSERT ON branches FOR EACH ROW EXECUTE FUNCTION record_lineage();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;
DO $$
DECLARE history text;
BEGIN
    FOREACH history IN ARRAY ARRAY['asset_versions', 'branch_heads', 'branch_lineage', 'events', 'audit_log'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', history);
    END LOOP;
END $$;

CREATE FUNCTION keep_submitted_changelist() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    IF OLD.status NOT IN ('submitted', 'abandoned') THEN
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    IF TG_OP = 'UPDATE' AND app_user_is_admin() AND NEW.description <> OLD.description
       AND to_jsonb(NEW) - 'description' - 'revision' = to_jsonb(OLD) - 'description' - 'revision' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'changelist % is % and never changes again', OLD.id, OLD.status USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER keep_submitted BEFORE UPDATE OR DELETE ON changelists
    FOR EACH ROW EXECUTE FUNCTION keep_submitted_changelist();

CREATE FUNCTION keep_submitted_items() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    IF EXISTS (SELECT FROM changed JOIN changelists c ON c.id = changed.changelist_id
               WHERE c.status NOT IN ('open', 'pending_review')) THEN
        RAISE EXCEPTION 'items of a finished changelist never change' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_submitted_insert AFTER INSERT ON changelist_items REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION keep_submitted_items();
CREATE TRIGGER keep_submitted_update AFTER UPDATE ON changelist_items REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION keep_submitted_items();
CREATE TRIGGER keep_submitted_delete AFTER DELETE ON changelist_items REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION keep_submitted_items();

-- A merge lands only through its gate (invariant 10 of the model).
CREATE FUNCTION hold_merge_at_gate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF NEW.status <> 'merged' THEN
        RETURN NEW;
    END IF;
    IF NOT EXISTS (SELECT FROM merge_jobs WHERE merge_id = NEW.id AND job_type = 'submit_gate'
                   AND status = 'completed' AND submit_gate_passed)
       OR EXISTS (SELECT FROM merge_jobs WHERE merge_id = NEW.id AND status IN ('queued', 'running', 'staged'))
       OR EXISTS (SELECT FROM merge_conflicts WHERE merge_id = NEW.id AND resolution IS NULL) THEN
        RAISE EXCEPTION 'merge % has not passed its submit gate', NEW.id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER hold_at_gate BEFORE INSERT OR UPDATE ON branch_merges
    FOR EACH ROW EXECUTE FUNCTION hold_merge_at_gate();

CREATE FUNCTION audit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    old_row jsonb := to_jsonb(OLD) - 'password_hash' - 'token_sha256';
    new_row jsonb := to_jsonb(NEW) - 'password_hash' - 'token_sha256';
    row_now jsonb := coalesce(new_row, old_row);
BEGIN
    INSERT INTO audit_log (project_id, table_name, operation, actor_id, request_id, before, after)
    VALUES ((CASE TG_TABLE_NAME WHEN 'projects' THEN row_now ->> 'id' ELSE row_now ->> 'project_id' END)::uuid,
            TG_TABLE_NAME, TG_OP, app_user_id(), nullif(current_setting('app.request_id', true), ''), old_row, new_row);
    RETURN NULL;
END $$;
DO $$
DECLARE audited text;
BEGIN
    FOREACH audited IN ARRAY ARRAY['users', 'api_tokens', 'projects', 'project_members', 'branches', 'changelists', 'labels',
            'locks', 'shelves', 'reviews', 'workspaces', 'branch_merges', 'merge_conflicts', 'merge_jobs'] LOOP
        EXECUTE format('CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %I
            FOR EACH ROW EXECUTE FUNCTION audit()', audited);
    END LOOP;
END $$;

-- Row-level security: the wall ---------------------------------------------------------------------------------------
-- `project_id = ANY ((SELECT my_projects())::uuid[])`: the lookup runs once per statement and not once per row.

DO $$
DECLARE tenant record;
BEGIN
    FOR tenant IN SELECT * FROM (VALUES
        -- table, what a writer needs to insert, update, delete ('' = nobody)
        ('changelist_counters', '',            'contributor', ''),
        ('project_members',     'manager',     'manager',     'manager'),
        ('project_blobs',       'contributor', '',            ''),
        ('branches',            'lead',        'contributor', ''),
        ('branch_lineage',      '',            '',            ''),
        ('changelists',         'contributor', 'contributor', ''),
        ('changelist_items',    'contributor', 'contributor', 'contributor'),
        ('assets',              'contributor', 'contributor', ''),
        ('asset_versions',      'contributor', '',            ''),
        ('branch_heads',        'contributor', '',            ''),
        ('labels',              'lead',        'lead',        'lead'),
        ('workspaces',          'viewer',      'viewer',      'viewer'),
        ('workspace_files',     'viewer',      'viewer',      'viewer'),
        ('locks',               'contributor', 'contributor', 'contributor'),
        ('shelves',             'contributor', 'contributor', 'contributor'),
        ('shelf_items',         'contributor', 'contributor', 'contributor'),
        ('reviews',             'reviewer',    'reviewer',    ''),
        ('branch_merges',       'lead',        'lead',        ''),
        ('merge_conflicts',     'lead',        'lead',        ''),
        ('merge_jobs',          'lead',        'lead',        ''),
        ('events',              'viewer',      '',            '')
    ) AS t (name, on_insert, on_update, on_delete) LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', tenant.name);
        EXECUTE format('CREATE POLICY members_read ON %I FOR SELECT
            USING (project_id = ANY ((SELECT my_projects())::uuid[]))', tenant.name);
        EXECUTE format('GRANT SELECT ON %I TO depot_service', tenant.name);
        IF tenant.on_insert <> '' THEN
            EXECUTE format('CREATE POLICY members_insert ON %I FOR INSERT
                WITH CHECK (project_id = ANY ((SELECT writable_projects(%L))::uuid[]))', tenant.name, tenant.on_insert);
            EXECUTE format('GRANT INSERT ON %I TO depot_service', tenant.name);
        END IF;
        IF tenant.on_update <> '' THEN
            EXECUTE format('CREATE POLICY members_update ON %I FOR UPDATE
                USING (project_id = ANY ((SELECT writable_projects(%L))::uuid[]))', tenant.name, tenant.on_update);
        END IF;
        IF tenant.on_delete <> '' THEN
            EXECUTE format('CREATE POLICY members_delete ON %I FOR DELETE
                USING (project_id = ANY ((SELECT writable_projects(%L))::uuid[]))', tenant.name, tenant.on_delete);
            EXECUTE format('GRANT DELETE ON %I TO depot_service', tenant.name);
        END IF;
    END LOOP;
END $$;

-- What may be updated is granted by column: an identity, a number or a hash is never among them.
GRANT UPDATE (last_no) ON changelist_counters TO depot_service;
GRANT UPDATE (role) ON project_members TO depot_service;
GRANT UPDATE (description, head_no, submit_role, require_review, require_validation) ON branches TO depot_service;
GRANT UPDATE (branch_id, status, number, description, revision, items_count, submitted_at) ON changelists TO depot_service;
GRANT UPDATE (path, action, base_version, sha256, moved_from, moved_from_key, validation, validation_report)
    ON changelist_items TO depot_service;
GRANT UPDATE (asset_type, tags, metadata, last_version) ON assets TO depot_service;
GRANT UPDATE (branch_id, at_no) ON labels TO depot_service;
GRANT UPDATE (branch_id, include, exclude, at_no) ON workspaces TO depot_service;
GRANT UPDATE (path, asset_id, version) ON workspace_files TO depot_service;
GRANT UPDATE (holder_id, base_version, fencing_number, acquired_at, expires_at) ON locks TO depot_service;
GRANT UPDATE (description, changelist_id) ON shelves TO depot_service;
GRANT UPDATE (path, action, base_version, sha256) ON shelf_items TO depot_service;
GRANT UPDATE (verdict, comment) ON reviews TO depot_service;
GRANT UPDATE (source_at, status, changelist_id, completed_at) ON branch_merges TO depot_service;
GRANT UPDATE (resolution, resolved_by, resolved_at, reason, source_version, target_version)
    ON merge_conflicts TO depot_service;
GRANT UPDATE (status, submit_gate_passed, attempt, fencing_number, leased_until, result) ON merge_jobs TO depot_service;

-- A workspace is its owner's; an open changelist is its author's.
CREATE POLICY own_workspace ON workspaces AS RESTRICTIVE FOR ALL USING (owner_id = app_user_id());
CREATE POLICY own_workspace ON workspace_files AS RESTRICTIVE FOR ALL
    USING (workspace_id IN (SELECT id FROM workspaces));
CREATE POLICY own_changelist ON changelists AS RESTRICTIVE FOR UPDATE
    USING (author_id = app_user_id() OR app_user_is_admin());
CREATE POLICY as_author ON changelists AS RESTRICTIVE FOR INSERT WITH CHECK (author_id = app_user_id());

ALTER TABLE projects ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY members_read ON projects FOR SELECT USING (id = ANY ((SELECT my_projects())::uuid[]));
CREATE POLICY managers_update ON projects FOR UPDATE USING (id = ANY ((SELECT my_projects('manager'))::uuid[]));
GRANT SELECT, UPDATE (name, description, status, quota_bytes) ON projects TO depot_service;

ALTER TABLE blobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY known_content ON blobs FOR SELECT USING (
    EXISTS (SELECT FROM project_blobs p WHERE p.sha256 = blobs.sha256)
    OR EXISTS (SELECT FROM upload_receipts r WHERE r.sha256 = blobs.sha256));
GRANT SELECT ON blobs TO depot_service;

ALTER TABLE upload_receipts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_receipts ON upload_receipts FOR SELECT
    USING (user_id = app_user_id() AND project_id = ANY ((SELECT my_projects())::uuid[]));
GRANT SELECT ON upload_receipts TO depot_service;

ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY colleagues_read ON users FOR SELECT USING (app_user_id() IS NOT NULL);
GRANT SELECT (id, username, display_name, studio_role, is_active, created_at) ON users TO depot_service;

ALTER TABLE api_tokens ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tokens ON api_tokens USING (user_id = app_user_id()) WITH CHECK (user_id = app_user_id());
GRANT SELECT (id, user_id, name, scope, expires_at, revoked_at, created_at), INSERT, UPDATE (revoked_at)
    ON api_tokens TO depot_service;

ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY managers_read ON audit_log FOR SELECT
    USING (app_user_is_admin() OR project_id = ANY ((SELECT my_projects('manager'))::uuid[]));
GRANT SELECT ON audit_log TO depot_service;

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_keys ON idempotency_keys USING (user_id = app_user_id()) WITH CHECK (user_id = app_user_id());
GRANT SELECT, INSERT, UPDATE (response) ON idempotency_keys TO depot_service;

ALTER TABLE login_failures ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

GRANT SELECT ON alembic_version TO depot_service; -- so that /health can tell whether the schema is current
GRANT USAGE ON SCHEMA public TO depot_service, depot_dump;
GRANT USAGE ON SEQUENCE lock_fencing_numbers TO depot_service;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO depot_service;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO depot_dump;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO depot_dump;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO depot_dump;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON SEQUENCES TO depot_dump;
