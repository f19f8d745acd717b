-- Leases that are not over, as the operator's pages list them: few among those that are.
CREATE INDEX leases_current ON leases (created_at, id) WHERE state <> 'ended';
