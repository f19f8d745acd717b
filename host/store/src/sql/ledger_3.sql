-- Refused orders, and those of them that are not shortened (delivered = 2).
CREATE INDEX orders_refused ON orders (created_at, id) WHERE state = 'refused';
CREATE INDEX orders_refused_whole ON orders (created_at, id) WHERE state = 'refused' AND delivered < 2;
