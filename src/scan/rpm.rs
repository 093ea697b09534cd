//! The bytes of an RPM database file -> the packages it says are installed (name, version, architecture).
//!
//! Three on-disk formats carry the same header blobs, and the format is told by its magic:
//!
//! | format               | file                        | magic                                     |
//! |----------------------|-----------------------------|-------------------------------------------|
//! | SQLite 3             | `rpmdb.sqlite`              | `SQLite format 3\0` at 0                  |
//! | Berkeley DB hash     | `Packages`                  | 0x00061561 at 12, in either byte order    |
//! | ndb                  | `Packages.db`               | `RpmP` at 0                               |
//!
//! A write-ahead log (`rpmdb.sqlite-wal`) is not read: rpm writes its pages back and empties it when it
//! closes the database, so only an image made in the middle of a transaction has one that matters. Likewise
//! a hot rollback journal is not applied.
//!
//! The input is hostile: each page is read at most once, the blobs together never exceed the file, and one
//! damaged header fails the whole file, because a list with silent gaps would read as "not installed".

/// Far more packages than any system has installed.
const MAX_PACKAGES: usize = 1_000_000;
/// The largest header blob that is read, in bytes. rpm allows 256 MiB; a header of file names and
/// dependencies stays far below either.
const MAX_BLOB: usize = 64 << 20;

const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";
const NDB_MAGIC: &[u8] = b"RpmP";
const BDB_HASH_MAGIC: u32 = 0x0006_1561;

/// One installed package as the RPM database names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RpmPackage {
    /// The package name, such as `libcublas-12-4`.
    pub(crate) name: String,
    /// `version-release`, with `epoch:` before it when the epoch is above 0.
    pub(crate) version: String,
    /// `x86_64`, `noarch`, …; empty where the header names none (rpm prints `(none)`).
    pub(crate) architecture: String,
}

/// The packages of an RPM database file, sorted by name, then version; `gpg-pubkey` entries are left out.
/// `Err` says in words why the file is damaged or of no known format.
pub(crate) fn packages(bytes: &[u8]) -> Result<Vec<RpmPackage>, String> {
    let mut found = Found { packages: Vec::new(), headers: 0, bytes_left: bytes.len() };
    if bytes.starts_with(SQLITE_MAGIC) {
        read_sqlite(bytes, &mut found).map_err(|e| format!("sqlite rpm database: {e}"))?;
    } else if bytes.starts_with(NDB_MAGIC) {
        read_ndb(bytes, &mut found).map_err(|e| format!("ndb rpm database: {e}"))?;
    } else if let Some(order) = bdb_byte_order(bytes) {
        read_bdb(bytes, order, &mut found).map_err(|e| format!("berkeley db rpm database: {e}"))?;
    } else {
        return Err("not an rpm database: neither sqlite, berkeley db hash nor ndb".to_owned());
    }
    found.packages.sort();
    Ok(found.packages)
}

/// What was read so far, and what may still be read.
struct Found {
    packages: Vec<RpmPackage>,
    headers: usize,
    /// Starts at the file size: intact records do not overlap, so together they are never larger. This
    /// keeps a small file whose records all point at the same bytes from growing without bound.
    bytes_left: usize,
}

impl Found {
    /// Says yes to a record of `len` bytes before anything is allocated for it.
    fn claim(&mut self, len: usize) -> Result<(), String> {
        if len > MAX_BLOB {
            return Err(format!("a record of {len} bytes is over the limit of {MAX_BLOB}"));
        }
        self.bytes_left = self
            .bytes_left
            .checked_sub(len)
            .ok_or_else(|| "the records together are larger than the file".to_owned())?;
        Ok(())
    }

    /// Takes in one header blob, already claimed.
    fn add(&mut self, blob: &[u8]) -> Result<(), String> {
        if self.headers >= MAX_PACKAGES {
            return Err(format!("more than {MAX_PACKAGES} package headers"));
        }
        self.headers += 1;
        let package = read_header(blob).map_err(|e| format!("package header {}: {e}", self.headers))?;
        self.packages.extend(package);
        Ok(())
    }
}

// Checked access: each of these fails where the bytes asked for are not all there.

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| format!("{N} bytes at offset {at} lie outside the data"))
}

fn slice(bytes: &[u8], at: usize, len: usize) -> Result<&[u8], String> {
    at.checked_add(len)
        .and_then(|end| bytes.get(at..end))
        .ok_or_else(|| format!("{len} bytes at offset {at} lie outside the data"))
}

/// A sum or product of sizes from the input, which may have wrapped.
fn sized(value: Option<usize>, what: &str) -> Result<usize, String> {
    value.ok_or_else(|| format!("{what} is too large"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

fn u16_at(bytes: &[u8], at: usize, order: Order) -> Result<usize, String> {
    let raw = array::<2>(bytes, at)?;
    Ok(usize::from(if order == Order::Little { u16::from_le_bytes(raw) } else { u16::from_be_bytes(raw) }))
}

fn u32_at(bytes: &[u8], at: usize, order: Order) -> Result<u32, String> {
    let raw = array::<4>(bytes, at)?;
    Ok(if order == Order::Little { u32::from_le_bytes(raw) } else { u32::from_be_bytes(raw) })
}

/// As `u32_at`, for a count or an offset.
fn size_at(bytes: &[u8], at: usize, order: Order) -> Result<usize, String> {
    usize::try_from(u32_at(bytes, at, order)?).map_err(|e| e.to_string())
}

/// Cuts a file into numbered pages and hands each out once, so that no chain of pages can be a loop.
struct Pages<'a> {
    bytes: &'a [u8],
    size: usize,
    /// The number of the first page in the file: 1 in SQLite, 0 in Berkeley DB.
    first: usize,
    used: Vec<bool>,
}

impl<'a> Pages<'a> {
    fn new(bytes: &'a [u8], size: usize, first: usize) -> Result<Pages<'a>, String> {
        // Both formats allow the powers of two from 512 to 65,536; the floor also bounds `used`.
        if !size.is_power_of_two() || !(512..=65_536).contains(&size) {
            return Err(format!("the page size {size} is none of the format's"));
        }
        Ok(Pages { bytes, size, first, used: vec![false; bytes.len() / size] })
    }

    fn take(&mut self, number: u32) -> Result<&'a [u8], String> {
        let missing =
            || format!("page {number} is missing: the file has {} pages", self.bytes.len() / self.size);
        let index =
            usize::try_from(number).ok().and_then(|n| n.checked_sub(self.first)).ok_or_else(missing)?;
        let start = index.checked_mul(self.size).ok_or_else(missing)?;
        let page = slice(self.bytes, start, self.size).map_err(|_| missing())?;
        let used = self.used.get_mut(index).ok_or_else(missing)?;
        if std::mem::replace(used, true) {
            return Err(format!("page {number} is used twice"));
        }
        Ok(page)
    }
}

// ---- Header blob: one package -----------------------------------------------------------------------------
//
// Source: rpm, docs/manual/hregions.md and lib/header.c. All big-endian; a database blob has no magic.
//
// | offset    | size    | field                                        |
// |-----------|---------|----------------------------------------------|
// | 0         | 4       | il, number of index entries                  |
// | 4         | 4       | dl, bytes of data                            |
// | 8         | 16 × il | index: tag, type, offset into data, count    |
// | 8 + 16 il | dl      | data                                         |
//
// | tag  | field        | type                          |
// |------|--------------|-------------------------------|
// | 1000 | name         | 6 string (8, 9: array of)     |
// | 1001 | version      | as name                       |
// | 1002 | release      | as name                       |
// | 1003 | epoch        | 4 int32                       |
// | 1022 | architecture | as name                       |

const TAG_NAME: u32 = 1000;
const TAG_VERSION: u32 = 1001;
const TAG_RELEASE: u32 = 1002;
const TAG_EPOCH: u32 = 1003;
const TAG_ARCH: u32 = 1022;

const TYPE_INT32: u32 = 4;
const TYPE_STRING: u32 = 6;
const TYPE_STRING_ARRAY: u32 = 8;
const TYPE_I18N_STRING: u32 = 9;

/// Where one tag's value lies.
#[derive(Clone, Copy)]
struct Entry {
    kind: u32,
    offset: usize,
    count: u32,
}

/// The package of a header blob; `None` for a public key, which rpm keeps among the packages.
fn read_header(blob: &[u8]) -> Result<Option<RpmPackage>, String> {
    let index_len = sized(size_at(blob, 0, Order::Big)?.checked_mul(16), "the index")?;
    let data_len = size_at(blob, 4, Order::Big)?;
    let index = slice(blob, 8, index_len).map_err(|e| format!("index: {e}"))?;
    let data_at = sized(index_len.checked_add(8), "the index")?;
    let data = slice(blob, data_at, data_len).map_err(|e| format!("data: {e}"))?;

    let [mut name, mut version, mut release, mut epoch, mut arch] = [None::<Entry>; 5];
    for entry in index.chunks_exact(16) {
        let field = match u32_at(entry, 0, Order::Big)? {
            TAG_NAME => &mut name,
            TAG_VERSION => &mut version,
            TAG_RELEASE => &mut release,
            TAG_EPOCH => &mut epoch,
            TAG_ARCH => &mut arch,
            _ => continue,
        };
        // The last one counts: rpm lets entries appended at install time replace those of the package. And
        // values are looked up after the loop, so many entries for one long string cost nothing.
        *field = Some(Entry {
            kind: u32_at(entry, 4, Order::Big)?,
            offset: size_at(entry, 8, Order::Big)?,
            count: u32_at(entry, 12, Order::Big)?,
        });
    }

    let name = text(data, name, "name")?.filter(|n| !n.is_empty()).ok_or_else(|| "no name".to_owned())?;
    if name == "gpg-pubkey" {
        return Ok(None);
    }
    let version = text(data, version, "version")?.ok_or_else(|| format!("{name}: no version"))?;
    let release = text(data, release, "release")?.ok_or_else(|| format!("{name}: no release"))?;
    let version = match number(data, epoch, "epoch")?.unwrap_or(0) {
        0 => format!("{version}-{release}"),
        epoch => format!("{epoch}:{version}-{release}"),
    };
    let architecture = text(data, arch, "architecture")?.unwrap_or_default();
    Ok(Some(RpmPackage { name, version, architecture }))
}

fn text(data: &[u8], entry: Option<Entry>, what: &str) -> Result<Option<String>, String> {
    let Some(Entry { kind, offset, count }) = entry else { return Ok(None) };
    if !matches!(kind, TYPE_STRING | TYPE_STRING_ARRAY | TYPE_I18N_STRING) || count == 0 {
        return Err(format!("the {what} has type {kind} and count {count}, which is no string"));
    }
    let rest = data.get(offset..).ok_or_else(|| format!("the {what} lies outside the header"))?;
    let end = rest.iter().position(|&b| b == 0).ok_or_else(|| format!("the {what} does not end"))?;
    let value = rest.get(..end).unwrap_or_default();
    // Headers older than rpm's move to utf-8 may hold other encodings, which is no damage.
    Ok(Some(String::from_utf8_lossy(value).into_owned()))
}

fn number(data: &[u8], entry: Option<Entry>, what: &str) -> Result<Option<u32>, String> {
    let Some(Entry { kind, offset, count }) = entry else { return Ok(None) };
    if kind != TYPE_INT32 || count == 0 {
        return Err(format!("the {what} has type {kind} and count {count}, which is no 32-bit number"));
    }
    u32_at(data, offset, Order::Big).map(Some).map_err(|_| format!("the {what} lies outside the header"))
}

// ---- SQLite -----------------------------------------------------------------------------------------------
//
// Source: https://www.sqlite.org/fileformat2.html. All big-endian; pages count from 1.
//
// | file header | size | field                                     |
// |-------------|------|-------------------------------------------|
// | 0           | 16   | magic                                     |
// | 16          | 2    | page size (1 means 65,536)                |
// | 20          | 1    | reserved bytes at the end of each page    |
// | 56          | 4    | text encoding (1 UTF-8)                   |
//
// | b-tree page | size | field (page 1: after the 100-byte header) |
// |-------------|------|-------------------------------------------|
// | 0           | 1    | type: 5 table interior, 13 table leaf     |
// | 3           | 2    | number of cells                           |
// | 8           | 4    | interior only: right-most child           |
// | 8 or 12     | 2 n  | offsets of the cells in the page          |
//
// Interior cell: child page (4), row id (varint). Leaf cell: payload size P (varint), row id (varint), the
// first bytes of the payload, and, where those are not all, the number of the first overflow page (4). An
// overflow page: next page or 0 (4), then payload. With U = page size − reserved bytes, X = U − 35,
// M = (U − 12) × 32 / 255 − 23 and K = M + (P − M) mod (U − 4), a leaf cell holds P bytes if P <= X, else K
// bytes if K <= X, else M.
//
// Record: header size (varint, counts itself), a serial type (varint) a column, then the values. Serial
// types: 0 null; 1 to 6 integers of 1, 2, 3, 4, 6, 8 bytes; 7 float; 8 and 9 the integers 0 and 1;
// N >= 12 even a blob of (N − 12) / 2 bytes; N >= 13 odd a text of (N − 13) / 2.

const TABLE_INTERIOR: u8 = 5;
const TABLE_LEAF: u8 = 13;
const UTF_8: u32 = 1;

struct Sqlite<'a> {
    pages: Pages<'a>,
    /// U above.
    usable: usize,
}

fn read_sqlite(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    let page_size = match u16_at(bytes, 16, Order::Big)? {
        1 => 65_536,
        size => size,
    };
    let [reserved] = array::<1>(bytes, 20)?;
    let pages = Pages::new(bytes, page_size, 1)?;
    // 480 is the format's own floor, and what keeps the arithmetic of `local_len` above zero.
    let usable = page_size
        .checked_sub(usize::from(reserved))
        .filter(|&usable| usable >= 480)
        .ok_or_else(|| format!("{reserved} reserved bytes leave too little of a page"))?;
    let encoding = u32_at(bytes, 56, Order::Big)?;
    if encoding != UTF_8 {
        return Err(format!("text encoding {encoding} is not utf-8, which rpm writes"));
    }
    let mut file = Sqlite { pages, usable };

    let mut root = None;
    file.each_row(1, found, &mut |_, row| {
        // sqlite_schema: type, name, table name, root page, sql.
        if column(row, 0)?.1 == b"table" && column(row, 1)?.1 == b"Packages" {
            root = Some(page_number(column(row, 3)?)?);
        }
        Ok(())
    })?;
    let root = root.ok_or_else(|| "no table packages".to_owned())?;
    file.each_row(root, found, &mut |found, row| {
        // Packages: hnum (null in the record, as it is the row id), blob.
        let (serial, blob) = column(row, 1)?;
        if serial < 12 || serial % 2 != 0 {
            return Err(format!("a package row holds serial type {serial}, which is no blob"));
        }
        found.add(blob)
    })
}

type RowVisitor<'v> = &'v mut dyn FnMut(&mut Found, &[u8]) -> Result<(), String>;

impl Sqlite<'_> {
    /// Hands each record of the table rooted at page `root` to `visit`, in no particular order.
    fn each_row(&mut self, root: u32, found: &mut Found, visit: RowVisitor) -> Result<(), String> {
        let mut open = vec![(root, self.pages.take(root)?)];
        while let Some((number, page)) = open.pop() {
            let page = slice(page, 0, self.usable)?;
            let start = if number == 1 { 100 } else { 0 };
            let [kind] = array::<1>(page, start)?;
            let cells = u16_at(page, start + 3, Order::Big)?;
            let pointers = match kind {
                TABLE_LEAF => start + 8,
                TABLE_INTERIOR => start + 12,
                _ => return Err(format!("page {number} has type {kind}, not that of a table")),
            };
            for cell in 0..cells {
                let at = u16_at(page, pointers + 2 * cell, Order::Big)?;
                if kind == TABLE_LEAF {
                    let row = self.payload(page, at, found).map_err(|e| format!("page {number}: {e}"))?;
                    visit(found, &row)?;
                } else {
                    // Taken here, not when popped: that keeps `open` no longer than the file has pages.
                    let child = u32_at(page, at, Order::Big)?;
                    open.push((child, self.pages.take(child)?));
                }
            }
            if kind == TABLE_INTERIOR {
                let child = u32_at(page, start + 8, Order::Big)?;
                open.push((child, self.pages.take(child)?));
            }
        }
        Ok(())
    }

    /// The payload of the leaf cell at `at`, put together from the page and its overflow pages.
    fn payload(&mut self, page: &[u8], at: usize, found: &mut Found) -> Result<Vec<u8>, String> {
        let (len, at) = varint(page, at)?;
        let (_row_id, at) = varint(page, at)?;
        let len = usize::try_from(len).map_err(|_| format!("a row of {len} bytes"))?;
        found.claim(len)?;
        let local = self.local_len(len);
        let mut row = Vec::with_capacity(len);
        row.extend_from_slice(slice(page, at, local)?);
        let mut next_at = (page, sized(at.checked_add(local), "a row")?);
        while row.len() < len {
            let next = u32_at(next_at.0, next_at.1, Order::Big)?;
            let overflow = slice(self.pages.take(next)?, 0, self.usable)?;
            let part = (len - row.len()).min(self.usable - 4);
            row.extend_from_slice(slice(overflow, 4, part)?);
            next_at = (overflow, 0);
        }
        Ok(row)
    }

    /// How many of a row's `len` bytes lie in the leaf page. No step can wrap: `usable` is 480 or more.
    fn local_len(&self, len: usize) -> usize {
        let most = self.usable - 35;
        if len <= most {
            return len;
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let wanted = least + (len - least) % (self.usable - 4);
        if wanted <= most { wanted } else { least }
    }
}

/// The value of the varint at `at` and the offset after it.
fn varint(bytes: &[u8], at: usize) -> Result<(u64, usize), String> {
    let mut value = 0_u64;
    for (i, &byte) in bytes.get(at..).unwrap_or_default().iter().take(9).enumerate() {
        if i == 8 {
            // The ninth byte gives all its eight bits.
            return Ok((value << 8 | u64::from(byte), at + 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok((value, at + i + 1));
        }
    }
    Err(format!("the number at offset {at} does not end"))
}

/// The serial type and the bytes of column `wanted` of a record.
fn column(record: &[u8], wanted: usize) -> Result<(u64, &[u8]), String> {
    let (header_len, mut at) = varint(record, 0)?;
    let header_len = usize::try_from(header_len).map_err(|_| "a record header is too large".to_owned())?;
    let header = slice(record, 0, header_len)?;
    let mut value_at = header_len;
    for i in 0..=wanted {
        let (serial, next) = varint(header, at).map_err(|_| format!("a record has only {i} columns"))?;
        at = next;
        let len = match serial {
            0 | 8 | 9 => 0,
            1..=4 => serial,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return Err(format!("a record holds the reserved serial type {serial}")),
            _ => (serial - 12) / 2,
        };
        let len = usize::try_from(len).map_err(|_| "a column is too large".to_owned())?;
        let value = slice(record, value_at, len)?;
        if i == wanted {
            return Ok((serial, value));
        }
        value_at = sized(value_at.checked_add(len), "a record")?;
    }
    Err("a record has too few columns".to_owned())
}

/// A root page number from the schema table.
fn page_number((serial, value): (u64, &[u8])) -> Result<u32, String> {
    let number = match serial {
        8 => 0,
        9 => 1,
        1..=6 => value.iter().try_fold(0_u64, |n, &b| Some(n.checked_mul(256)? | u64::from(b))).unwrap_or(0),
        _ => return Err(format!("a root page has serial type {serial}, which is no integer")),
    };
    u32::try_from(number).map_err(|_| format!("page {number} is missing"))
}

// ---- Berkeley DB hash -------------------------------------------------------------------------------------
//
// Source: Berkeley DB 5.3, src/dbinc/db_page.h, and rpm, lib/backend/bdb_ro.c. In the byte order of the
// machine that wrote it; pages count from 0.
//
// | meta page (0) | size | field                                               |
// |---------------|------|-----------------------------------------------------|
// | 12            | 4    | magic                                               |
// | 16            | 4    | version, 8 to 10                                    |
// | 20            | 4    | page size                                           |
// | 24            | 1    | encryption, 0 none                                  |
// | 26            | 1    | flags: 1 checksums (pages have a longer header)     |
// | 32            | 4    | number of the last page                             |
//
// | page          | size | field                                               |
// |---------------|------|-----------------------------------------------------|
// | 8             | 4    | its own number                                      |
// | 16            | 4    | next page of the chain, or 0                        |
// | 20            | 2    | number of items                                     |
// | 22            | 2    | overflow page: bytes of data                        |
// | 25            | 1    | type: 2 and 13 hash, 7 overflow                     |
// | 26            | 2 n  | hash page: offsets of the items, keys at even index |
//
// Items fill the page from its end, so item i ends where item i − 1 begins. Item: type (1), then for 1
// (key or data) the bytes, for 3 (off page) at 4 the first overflow page (4) and at 8 the length (4).
// Keys are the package numbers; number 0 holds the largest number given out and is no package.

const BDB_HASH_UNSORTED: u8 = 2;
const BDB_OVERFLOW: u8 = 7;
const BDB_HASH: u8 = 13;
const ITEM_DATA: u8 = 1;
const ITEM_OFF_PAGE: u8 = 3;
const BDB_PAGE_HEADER: usize = 26;

fn bdb_byte_order(bytes: &[u8]) -> Option<Order> {
    [Order::Little, Order::Big].into_iter().find(|&order| u32_at(bytes, 12, order) == Ok(BDB_HASH_MAGIC))
}

fn read_bdb(bytes: &[u8], order: Order, found: &mut Found) -> Result<(), String> {
    let version = u32_at(bytes, 16, order)?;
    if !(8..=10).contains(&version) {
        return Err(format!("hash version {version} is not one of 8 to 10"));
    }
    let [encryption, _, flags] = array::<3>(bytes, 24)?;
    if encryption != 0 || flags & 1 != 0 {
        return Err("encrypted or checksummed pages are not read".to_owned());
    }
    let page_size = size_at(bytes, 20, order)?;
    let last = u32_at(bytes, 32, order)?;
    // Taken once each: hash pages by their numbers, overflow pages by their chains.
    let mut hash_pages = Pages::new(bytes, page_size, 0)?;
    let mut overflow = Pages::new(bytes, page_size, 0)?;
    // Every page is visited rather than every bucket: it needs no trust in the bucket tables, and rpm's
    // deletions leave no stale hash pages (freed ones get type 0). A missing page ends the loop early.
    for number in 1..=last {
        let page = hash_pages.take(number)?;
        let [kind] = array::<1>(page, 25)?;
        if matches!(kind, BDB_HASH | BDB_HASH_UNSORTED) {
            check_own_number(page, number, order)?;
            read_hash_page(page, order, &mut overflow, found).map_err(|e| format!("page {number}: {e}"))?;
        }
    }
    Ok(())
}

/// rpm refuses a page that does not carry its own number; so does this, as it shows shifted pages.
fn check_own_number(page: &[u8], number: u32, order: Order) -> Result<(), String> {
    let own = u32_at(page, 8, order)?;
    if own == number { Ok(()) } else { Err(format!("page {number} says it is page {own}")) }
}

fn read_hash_page(page: &[u8], order: Order, overflow: &mut Pages, found: &mut Found) -> Result<(), String> {
    let items = u16_at(page, 20, order)?;
    if items % 2 != 0 {
        return Err(format!("{items} items are not pairs of keys and values"));
    }
    let mut end = page.len();
    let mut key: Option<&[u8]> = None;
    for i in 0..items {
        let start = u16_at(page, BDB_PAGE_HEADER + 2 * i, order)?;
        let item = page.get(start..end).ok_or_else(|| format!("item {i} overlaps the one before"))?;
        end = start;
        let Some(key) = key.take() else {
            key = Some(item);
            continue;
        };
        let number = match key {
            [ITEM_DATA, number @ ..] if number.len() == 4 => number,
            _ => return Err(format!("item {i} has no package number for a key")),
        };
        if number == [0; 4] {
            continue;
        }
        match item {
            [ITEM_DATA, blob @ ..] => {
                found.claim(blob.len())?;
                found.add(blob)?;
            }
            [ITEM_OFF_PAGE, ..] => {
                let blob = overflow_chain(item, order, overflow, found)?;
                found.add(&blob)?;
            }
            _ => return Err(format!("item {i} is neither data nor a chain of pages")),
        }
    }
    Ok(())
}

fn overflow_chain(
    item: &[u8],
    order: Order,
    pages: &mut Pages,
    found: &mut Found,
) -> Result<Vec<u8>, String> {
    let mut next = u32_at(item, 4, order)?;
    let len = size_at(item, 8, order)?;
    found.claim(len)?;
    let mut blob = Vec::with_capacity(len);
    while blob.len() < len {
        let page = pages.take(next)?;
        check_own_number(page, next, order)?;
        let [kind] = array::<1>(page, 25)?;
        let part = u16_at(page, 22, order)?;
        // An empty part would be harmless (no page is taken twice) but is never written.
        if kind != BDB_OVERFLOW || part == 0 || part > len - blob.len() {
            return Err(format!("page {next} is not the next {} bytes of a chain", len - blob.len()));
        }
        blob.extend_from_slice(slice(page, BDB_PAGE_HEADER, part)?);
        next = u32_at(page, 16, order)?;
    }
    Ok(blob)
}

// ---- ndb --------------------------------------------------------------------------------------------------
//
// Source: rpm, lib/backend/ndb/rpmpkg.c. All little-endian; blocks of 16 bytes, pages of 4,096.
//
// | file header | size | field                                           |
// |-------------|------|-------------------------------------------------|
// | 0           | 4    | magic `RpmP`                                    |
// | 4           | 4    | version, 0                                      |
// | 12          | 4    | number of slot pages, this header's included    |
//
// | slot        | size | field (slots fill the pages from offset 32 on)  |
// |-------------|------|-------------------------------------------------|
// | 0           | 4    | magic `Slot`                                    |
// | 4           | 4    | package number                                  |
// | 8           | 4    | first block of the blob; 0 is a free slot       |
// | 12          | 4    | number of blocks                                |
//
// | blob        | size | field                                           |
// |-------------|------|-------------------------------------------------|
// | 0           | 4    | magic `BlbS`                                    |
// | 4           | 4    | package number                                  |
// | 12          | 4    | length of the header blob                       |
// | 16          | len  | header blob, then zeros to the end less 12      |
// | end − 8     | 4    | length again                                    |
// | end − 4     | 4    | magic `BlbE`                                    |
//
// The Adler-32 sum at end − 12 is not checked; rpm does not check it on reading either.

const NDB_HEADER: usize = 32;
const NDB_PAGE: usize = 4096;
const NDB_BLOCK: usize = 16;

fn read_ndb(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    let version = u32_at(bytes, 4, Order::Little)?;
    if version != 0 {
        return Err(format!("version {version} is not 0"));
    }
    let slots_end = sized(size_at(bytes, 12, Order::Little)?.checked_mul(NDB_PAGE), "the slot table")?;
    let slots = bytes.get(NDB_HEADER..slots_end).ok_or_else(|| "the slot table is cut off".to_owned())?;
    for (i, slot) in slots.chunks_exact(NDB_BLOCK).enumerate() {
        read_slot(bytes, slot, slots_end, found).map_err(|e| format!("slot {i}: {e}"))?;
    }
    Ok(())
}

fn read_slot(bytes: &[u8], slot: &[u8], slots_end: usize, found: &mut Found) -> Result<(), String> {
    if !slot.starts_with(b"Slot") {
        return Err("no slot magic".to_owned());
    }
    let number = u32_at(slot, 4, Order::Little)?;
    let start = sized(size_at(slot, 8, Order::Little)?.checked_mul(NDB_BLOCK), "its offset")?;
    let len = sized(size_at(slot, 12, Order::Little)?.checked_mul(NDB_BLOCK), "its length")?;
    if start == 0 {
        return Ok(());
    }
    if start < slots_end {
        return Err("its blob lies in the slot table".to_owned());
    }
    let blob = slice(bytes, start, len)?;
    let header_len = size_at(blob, 12, Order::Little)?;
    let body_len = len.checked_sub(16 + 12).ok_or_else(|| "its blob is too short".to_owned())?;
    let tail_at = 16 + body_len;
    let intact = blob.starts_with(b"BlbS")
        && blob.ends_with(b"BlbE")
        && u32_at(blob, 4, Order::Little)? == number
        && size_at(blob, tail_at + 4, Order::Little)? == header_len
        && header_len <= body_len;
    if !intact {
        return Err(format!("package {number} has a damaged blob"));
    }
    found.claim(header_len)?;
    found.add(slice(blob, 16, header_len)?)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers that the tests themselves chose")]
mod tests {
    use super::*;

    /// Each fixture beside what `rpm -qa` says of it; `fixtures/rpmdb/README.md` tells how they were made.
    const FIXTURES: [(&str, &str); 5] = [
        ("sqlite-512.sqlite", "sqlite-512.txt"),
        ("sqlite-4096.sqlite", "sqlite-4096.txt"),
        ("bdb-little.packages", "bdb-little.txt"),
        ("bdb-big.packages", "bdb-big.txt"),
        ("ndb.db", "ndb.txt"),
    ];

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/fixtures/rpmdb/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
    }

    fn package(name: &str, version: &str, architecture: &str) -> RpmPackage {
        RpmPackage { name: name.into(), version: version.into(), architecture: architecture.into() }
    }

    /// Lines of `name epoch version release arch` -> packages.
    fn oracle(name: &str) -> Vec<RpmPackage> {
        let text = String::from_utf8(fixture(name)).expect(name);
        let mut packages = Vec::new();
        for line in text.lines() {
            let [name, epoch, version, release, arch] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let version = match epoch {
                "(none)" | "0" => format!("{version}-{release}"),
                _ => format!("{epoch}:{version}-{release}"),
            };
            if name != "gpg-pubkey" {
                packages.push(package(name, &version, arch));
            }
        }
        packages.sort();
        packages
    }

    fn error(bytes: &[u8]) -> String {
        packages(bytes).expect_err("damaged")
    }

    /// A linear congruential generator (Knuth's MMIX constants): the same numbers on every run.
    struct Lcg(u64);

    impl Lcg {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % limit
        }
    }

    #[test]
    fn fixtures_hold_what_rpm_lists() {
        for (file, listing) in FIXTURES {
            let expected = oracle(listing);
            assert!(expected.len() > 20, "{listing}");
            assert_eq!(packages(&fixture(file)).as_ref(), Ok(&expected), "{file}");
        }
        let all = packages(&fixture("sqlite-4096.sqlite")).unwrap();
        assert!(all.contains(&package("cuda-cudart-12-4", "12.4.127-1", "x86_64")));
        assert!(all.contains(&package("tilde", "7:1.0~rc1-2^git3", "noarch")));
    }

    #[test]
    fn cut_files_are_refused_or_read_in_full() {
        for (file, listing) in FIXTURES {
            let (whole, expected) = (fixture(file), oracle(listing));
            for len in (0..whole.len()).step_by(1024).chain(0..600) {
                // A cut may fall behind the last page that matters, never before it.
                if let Ok(read) = packages(&whole[..len]) {
                    assert_eq!(read, expected, "{file} cut to {len}");
                }
            }
            assert!(packages(&whole[..whole.len() / 4]).is_err(), "{file}");
        }
    }

    #[test]
    fn flipped_bytes_never_panic() {
        for (file, _) in FIXTURES {
            let whole = fixture(file);
            let mut random = Lcg(42);
            let mut bytes = whole.clone();
            for round in 0..2000 {
                let mut touched = Vec::new();
                for _ in 0..=random.below(3) {
                    // Every other round aims at the first bytes of a page, where the structure is.
                    let at = match round % 2 {
                        0 => random.below(whole.len()),
                        _ => random.below(whole.len() / 512) * 512 + random.below(48),
                    };
                    bytes[at] = random.below(256) as u8;
                    touched.push(at);
                }
                let _ = packages(&bytes);
                for at in touched {
                    bytes[at] = whole[at];
                }
            }
            assert_eq!(bytes, whole);
        }
    }

    #[test]
    fn unknown_bytes_are_named_so() {
        for bytes in [&b""[..], b"hello", &[0; 4096]] {
            assert_eq!(error(bytes), "not an rpm database: neither sqlite, berkeley db hash nor ndb");
        }
        assert!(error(b"SQLite format 3\0").starts_with("sqlite rpm database: "));
        assert!(error(b"RpmP").starts_with("ndb rpm database: "));
    }

    #[test]
    fn page_loops_are_refused() {
        let mut sqlite = fixture("sqlite-512.sqlite");
        for (i, page) in sqlite.chunks_exact_mut(512).enumerate() {
            if page[0] == TABLE_INTERIOR {
                page[8..12].copy_from_slice(&(i as u32 + 1).to_be_bytes());
            }
        }
        assert!(error(&sqlite).ends_with("is used twice"), "{}", error(&sqlite));

        let mut bdb = fixture("bdb-big.packages");
        for (i, page) in bdb.chunks_exact_mut(512).enumerate() {
            if page[25] == BDB_OVERFLOW {
                page[16..20].copy_from_slice(&(i as u32).to_be_bytes());
            }
        }
        assert!(error(&bdb).ends_with("is used twice"), "{}", error(&bdb));
    }

    #[test]
    fn many_slots_for_one_blob_are_refused() {
        let mut ndb = fixture("ndb.db");
        let first: Vec<u8> = ndb[32..48].to_vec();
        for slot in ndb[32..4096].chunks_exact_mut(16) {
            slot.copy_from_slice(&first);
        }
        assert!(error(&ndb).ends_with("the records together are larger than the file"), "{}", error(&ndb));
    }

    /// A tag, its type and its value.
    type Tag = (u32, u32, &'static [u8]);

    fn header(tags: &[Tag]) -> Vec<u8> {
        let (mut index, mut data) = (Vec::new(), Vec::<u8>::new());
        for (tag, kind, value) in tags {
            for field in [*tag, *kind, data.len() as u32, 1] {
                index.extend(field.to_be_bytes());
            }
            data.extend(*value);
        }
        let mut blob = Vec::from((tags.len() as u32).to_be_bytes());
        blob.extend((data.len() as u32).to_be_bytes());
        blob.extend(index);
        blob.extend(data);
        blob
    }

    const TINY: [Tag; 3] = [(TAG_NAME, 6, b"tiny\0"), (TAG_VERSION, 6, b"1\0"), (TAG_RELEASE, 6, b"2\0")];

    #[test]
    fn headers_are_read_and_checked() {
        let with = |tag: Tag| read_header(&header(&[&TINY[..], &[tag]].concat()));
        assert_eq!(read_header(&header(&TINY)), Ok(Some(package("tiny", "1-2", ""))));
        assert_eq!(with((TAG_EPOCH, 4, &[0, 0, 0, 0])), Ok(Some(package("tiny", "1-2", ""))));
        assert_eq!(with((TAG_EPOCH, 4, &[0, 0, 1, 0])), Ok(Some(package("tiny", "256:1-2", ""))));
        assert_eq!(with((TAG_ARCH, 6, b"ppc64le\0")), Ok(Some(package("tiny", "1-2", "ppc64le"))));
        assert_eq!(with((TAG_VERSION, 9, b"9\0other\0")), Ok(Some(package("tiny", "9-2", ""))));
        assert_eq!(with((TAG_VERSION, 6, b"\xff\0")), Ok(Some(package("tiny", "\u{fffd}-2", ""))));
        assert_eq!(with((TAG_NAME, 6, b"gpg-pubkey\0")), Ok(None));
        assert_eq!(with((TAG_NAME, 6, b"open")), Err("the name does not end".to_owned()));
        assert_eq!(with((TAG_EPOCH, 4, &[1])), Err("the epoch lies outside the header".to_owned()));
        assert!(with((TAG_NAME, 4, b"1234")).is_err_and(|e| e.ends_with("which is no string")));
        assert!(with((TAG_EPOCH, 6, b"1\0")).is_err_and(|e| e.ends_with("which is no 32-bit number")));

        let error = |blob: &[u8]| read_header(blob).expect_err("damaged");
        assert_eq!(error(&header(&TINY[1..])), "no name");
        assert_eq!(error(&header(&TINY[..2])), "tiny: no release");
        assert!(error(&[0xff; 64]).starts_with("index: "));
        let whole = header(&TINY);
        for len in 0..whole.len() {
            error(&whole[..len]);
        }
    }

    /// A two-page sqlite file: the schema, and one leaf whose `cells` cells are all the same row.
    fn small_sqlite(cells: u16, payload_len: Option<&[u8]>) -> Vec<u8> {
        let mut file = vec![0; 1024];
        file[..16].copy_from_slice(SQLITE_MAGIC);
        file[16..18].copy_from_slice(&512_u16.to_be_bytes());
        file[59] = UTF_8 as u8;
        // Record: a header of 6 bytes, texts of 5, 8 and 8 bytes, the 1-byte integer 2, an empty text.
        let schema = b"\x1c\x01\x06\x17\x1d\x1d\x01\x0dtablePackagesPackages\x02";
        file[100] = TABLE_LEAF;
        file[104] = 1;
        file[108..110].copy_from_slice(&400_u16.to_be_bytes());
        file[400..400 + schema.len()].copy_from_slice(schema);

        let blob = header(&TINY);
        let serial = 12 + 2 * blob.len();
        let record = [4, 0, 0x80 | (serial >> 7) as u8, (serial & 0x7f) as u8];
        let len = [(record.len() + blob.len()) as u8];
        let cell = [payload_len.unwrap_or(&len), &[1], &record, &blob].concat();
        file[512] = TABLE_LEAF;
        file[515..517].copy_from_slice(&cells.to_be_bytes());
        for i in 0..usize::from(cells) {
            file[520 + 2 * i..522 + 2 * i].copy_from_slice(&400_u16.to_be_bytes());
        }
        file[912..912 + cell.len()].copy_from_slice(&cell);
        file
    }

    #[test]
    fn sqlite_rows_that_overlap_or_claim_too_much_are_refused() {
        let tiny = package("tiny", "1-2", "");
        assert_eq!(packages(&small_sqlite(1, None)), Ok(vec![tiny]));
        let many = error(&small_sqlite(180, None));
        assert!(many.ends_with("the records together are larger than the file"), "{many}");
        let huge = error(&small_sqlite(1, Some(&[0xa0, 0x80, 0x80, 0x80, 0x01])));
        assert!(huge.ends_with("is over the limit of 67108864"), "{huge}");
        let larger = error(&small_sqlite(1, Some(&[0xff, 0x00])));
        assert!(larger.ends_with("the records together are larger than the file"), "{larger}");
        assert!(packages(&small_sqlite(1, Some(&[0xff; 9]))).is_err());

        let mut other = small_sqlite(1, None);
        other[415] = b'X';
        assert_eq!(error(&other), "sqlite rpm database: no table packages");
        let mut looped = small_sqlite(1, None);
        looped[429] = 1;
        assert_eq!(error(&looped), "sqlite rpm database: page 1 is used twice");
    }

    #[test]
    fn varints_take_up_to_nine_bytes() {
        assert_eq!(varint(&[0x7f], 0), Ok((127, 1)));
        assert_eq!(varint(&[0, 0x81, 0], 1), Ok((128, 3)));
        assert_eq!(varint(&[0xff; 9], 0), Ok((u64::MAX, 9)));
        assert!(varint(&[0xff; 8], 0).is_err());
        assert!(varint(&[], 5).is_err());
    }
}
