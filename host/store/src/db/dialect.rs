//! Statements whose text differs between the databases.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

/// A statement, written once for each database. [`crate::dialect_sql!`] reads it from its files.
#[derive(Clone, Copy, Debug)]
pub struct DialectSql {
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

impl DialectSql {
    #[must_use]
    pub fn text(self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Sqlite => self.sqlite,
            Dialect::Postgres => self.postgres,
        }
    }
}

/// The statement in `sql/sqlite/<name>.sql` and `sql/postgres/<name>.sql`, beside the calling file;
/// the one in `sql/<name>.sql`, which both databases understand; or one that begins with the former
/// and goes on with the latter.
#[macro_export]
macro_rules! dialect_sql {
    (both $name:literal) => {
        $crate::db::DialectSql {
            sqlite: include_str!(concat!("sql/", $name, ".sql")),
            postgres: include_str!(concat!("sql/", $name, ".sql")),
        }
    };
    ($name:literal, both $rest:literal) => {
        $crate::db::DialectSql {
            sqlite: concat!(
                include_str!(concat!("sql/sqlite/", $name, ".sql")),
                include_str!(concat!("sql/", $rest, ".sql"))
            ),
            postgres: concat!(
                include_str!(concat!("sql/postgres/", $name, ".sql")),
                include_str!(concat!("sql/", $rest, ".sql"))
            ),
        }
    };
    ($name:literal) => {
        $crate::db::DialectSql {
            sqlite: include_str!(concat!("sql/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("sql/postgres/", $name, ".sql")),
        }
    };
}

/// The version of a schema in a database. It is migrated by whoever opens it to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// As [`Schema::name`].
    pub name: &'static str,
    /// 0: it is not there yet.
    pub found: usize,
    /// The newest version that this program supports.
    pub known: usize,
}

/// Tables and their migrations. Forward only: a released step is never edited, the next one is
/// added.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Its name among the schemas of one Postgres database.
    pub name: &'static str,
    /// Step `n` migrates from version `n` to `n + 1`.
    pub steps: &'static [DialectSql],
}
