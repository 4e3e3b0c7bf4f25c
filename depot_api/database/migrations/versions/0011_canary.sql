-- A drill writes one row, and has proved that it replayed the log when it finds that row in what it restored. A few rows
-- a week: they stay.
CREATE TABLE ops_canaries (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE ops_canaries ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY operations_write ON ops_canaries TO depot_ops USING (true) WITH CHECK (true);
GRANT USAGE ON SCHEMA public TO depot_ops;
GRANT SELECT, INSERT ON ops_canaries TO depot_ops;
