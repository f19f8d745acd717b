-- ?1: this replica. Only one process may have the file open: whoever else owned an order is gone.
UPDATE orders SET worker = ?1
WHERE (delivered = 0 OR state NOT IN ('active', 'ended', 'refused', 'refunded')) AND worker <> ?1
