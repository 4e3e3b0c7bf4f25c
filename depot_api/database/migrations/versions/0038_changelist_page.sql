-- A changelist by its number and a page of a project's changelists each have one index, whatever statistics say: where both
-- could serve, a planner that takes a project for small read all of it. revision > 0 is true of every row, number IS NOT NULL
-- of every row that is asked for by number.
ALTER TABLE changelists ADD CHECK (revision > 0);
DROP INDEX changelists_project;
CREATE INDEX changelists_project ON changelists (project_id, id) WHERE revision > 0;
ALTER TABLE changelists DROP CONSTRAINT changelists_project_id_number_key;
CREATE UNIQUE INDEX changelists_number ON changelists (project_id, number) WHERE number IS NOT NULL;
