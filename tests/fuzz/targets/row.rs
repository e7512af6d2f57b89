//! A row of the store's file. What can be read is written again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tillgate::fuzz::store::{Table, row};

const TABLES: [Table; 4] = [
    Table::Payments,
    Table::Changes,
    Table::Answers,
    Table::Deliveries,
];

fuzz_target!(|data: &[u8]| {
    let Some(([table], bytes)) = data.split_first_chunk() else {
        return;
    };
    let table = TABLES[usize::from(*table) % TABLES.len()];
    if let Some((again, said)) = row(table, bytes) {
        let (_, once_more) = row(table, &again)
            .unwrap_or_else(|| panic!("{table:?}: what was written cannot be read"));
        assert_eq!(said, once_more, "{table:?}");
    }
});
