//! Every bound on outside input, with its unit and its reason. What is hit is said; nothing is cut in silence.

/// Manifest or index, bytes. Registries must accept at least this much, none sends more.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Image config, bytes.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// An index may name an index; more levels than this are a loop or an attack.
pub const INDEX_DEPTH_MAX: usize = 4;
/// Layers per image. Engines stop at 127; converters have been seen to write more.
pub const LAYERS_MAX: usize = 512;
/// Entries (files, directories, links) per layer.
pub const LAYER_ENTRIES_MAX: usize = 2_000_000;
/// Entries of all layers of an image together (150,000 seen).
pub const IMAGE_ENTRIES_MAX: usize = 4_000_000;
/// Uncompressed bytes per layer.
pub const LAYER_BYTES_MAX: u64 = 128 << 30;
/// A sparse file with its holes, bytes: the holes cost time though nothing is stored.
pub const SPARSE_BYTES_MAX: u64 = 16 << 30;
/// Path inside the image, bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// DT_RPATH or DT_RUNPATH of one file, bytes (20 kB seen in TensorFlow).
pub const SEARCH_PATH_BYTES_MAX: usize = 1 << 20;
/// Symbolic links followed for one path, as Linux does.
pub const SYMLINK_DEPTH_MAX: usize = 40;
/// zstd window, as a power of two: 128 MiB, what `zstd --long=27` writes.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Bytes of one ELF file kept in memory while it streams by.
pub const KEPT_BYTES_PER_FILE_MAX: usize = 64 << 20;
/// The same, of all workers together; above it a file spills to disk.
pub const KEPT_BYTES_TOTAL_MAX: usize = 128 << 20;
/// Bytes of one file spilled to a temporary file.
pub const SPILLED_BYTES_PER_FILE_MAX: u64 = 8 << 30;
/// Dynamic string table, bytes (47 MB seen in TensorFlow).
pub const DYNAMIC_STRINGS_BYTES_MAX: u64 = 128 << 20;
/// Dynamic symbol table, bytes.
pub const DYNAMIC_SYMBOLS_BYTES_MAX: u64 = 64 << 20;
/// Section header table, bytes.
pub const SECTION_HEADERS_BYTES_MAX: u64 = 1 << 20;
/// Section name table, bytes.
pub const SECTION_NAMES_BYTES_MAX: u64 = 1 << 20;
/// Program headers per file.
pub const PROGRAM_HEADERS_MAX: usize = 1024;
/// Dynamic section, bytes.
pub const DYNAMIC_SECTION_BYTES_MAX: u64 = 1 << 20;
/// One note segment, bytes.
pub const NOTE_BYTES_MAX: u64 = 1 << 20;
/// Libraries named by one ELF file, and names it may open at run time.
pub const NAMES_PER_FILE_MAX: usize = 4096;
/// Imports from CUDA libraries (or of torch's C++ interface) that are kept of one ELF file.
pub const IMPORTS_PER_FILE_MAX: usize = 4096;
/// Numbers that may be versions, kept of one ELF file until its symbol table has come.
pub const VERSION_NUMBERS_MAX: usize = 500_000;
/// Paths that are looked at to find what loads what, in all processes of an image together and names that are asked for (below half a million in vLLM).
pub const LIBRARY_LOOKUPS_MAX: u64 = 2_000_000;
/// Version texts of one kind that are kept of one ELF file.
pub const VERSION_TEXTS_MAX: usize = 8;
/// Header of one fatbin entry, bytes (184 is the largest seen; concatenated groups are longer).
pub const FATBIN_HEADER_BYTES_MAX: usize = 64 << 10;
/// Fatbin entries per file (29,341 containers seen in cuFFT).
pub const FATBIN_ENTRIES_PER_FILE_MAX: usize = 400_000;
/// Problems told of one file; more of the same are counted.
pub const PROBLEMS_PER_FILE_MAX: usize = 20;
/// Text files that are read whole (package databases, metadata, configuration), bytes.
pub const TEXT_BYTES_MAX: u64 = 64 << 20;
/// Cache entry as stored, bytes (half a megabyte for a layer of 5 GB with PyTorch).
pub const CACHE_ENTRY_BYTES_MAX: u64 = 64 << 20;
/// The same unpacked.
pub const CACHE_ENTRY_UNPACKED_BYTES_MAX: u64 = 512 << 20;
/// Table of contents of a seekable layer, packed or not, bytes (25 MB for a layer of 5 GB with PyTorch).
pub const TOC_BYTES_MAX: u64 = 64 << 20;
/// Entries of such a table, pieces of files among them (90,000 in that layer).
pub const TOC_ENTRIES_MAX: usize = 500_000;
/// Bytes unpacked of one layer that is read by its table (0.3 GB in that layer).
pub const BY_TABLE_BYTES_MAX: u64 = 1 << 30;
/// One piece of a file in a seekable layer, bytes (podman cuts at 8 MiB, eStargz at 4 MiB by default).
pub const TOC_PIECE_BYTES_MAX: u64 = 64 << 20;
/// Members of one wheel or static archive.
pub const ARCHIVE_MEMBERS_MAX: usize = 200_000;
/// List of images to sweep, bytes: `kubectl get pods -A -o json` of a large cluster.
pub const LIST_BYTES_MAX: u64 = 1 << 30;
/// Documents of a list in YAML, and values in all of them.
pub const YAML_DOCUMENTS_MAX: usize = 100_000;
pub const YAML_NODES_MAX: usize = 20_000_000;
/// Images of a sweep looked at at the same time.
pub const SWEEP_WORKERS_MAX: usize = 16;
/// Repositories, or tags of one, that a registry may list.
pub const CATALOG_ENTRIES_MAX: usize = 1_000_000;
/// Facts document given with `--facts`, bytes.
pub const FACTS_BYTES_MAX: u64 = 1 << 30;
/// Layers examined at the same time: each may hold its share of [`KEPT_BYTES_TOTAL_MAX`].
pub const WORKERS_MAX: usize = 4;
/// Attempts for one request to a registry.
pub const REQUEST_ATTEMPTS_MAX: u32 = 6;
/// Longest pause that a registry can ask for with `Retry-After`, seconds.
pub const RETRY_AFTER_SECONDS_MAX: u64 = 120;
/// Configuration file, bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;
/// Dockerfile, bytes.
pub const DOCKERFILE_BYTES_MAX: u64 = 1 << 20;
/// Earlier report given with `--baseline`, bytes.
pub const BASELINE_BYTES_MAX: u64 = 256 << 20;
/// Manifests, indexes and configs of one archive that comes as a stream, bytes together.
pub const ARCHIVE_DOCUMENTS_BYTES_MAX: u64 = 64 << 20;
/// Values of the variables of one container, written out, bytes: a process takes 2 MiB.
pub const POD_VARIABLES_BYTES_MAX: usize = 2 << 20;
/// Body of a request to the server, bytes: Kubernetes takes objects of 3 MiB, and an update carries two.
pub const SERVE_BODY_BYTES_MAX: usize = 7 << 20;
/// Bodies up to this length always find a place, bytes: reviews of ordinary pods.
pub const SERVE_SMALL_BODY_BYTES: usize = 32 << 10;
/// Longer bodies of all requests that are arriving or being read, bytes together.
pub const SERVE_BODIES_BYTES_MAX: usize = 64 << 20;
/// Connections open at the same time.
pub const SERVE_CONNECTIONS_MAX: usize = 4096;
/// Of these, from one address.
pub const SERVE_CONNECTIONS_OF_PEER_MAX: usize = 1024;
/// Longest wait of an open connection for its next request, seconds: clients close theirs after 90.
pub const SERVE_IDLE_SECONDS: u64 = 120;
/// Requests in work at the same time; more are answered by policy.
pub const SERVE_REQUESTS_MAX: usize = 1024;
/// Judgments in work or waiting for a core; more are answered by policy.
pub const SERVE_JUDGMENTS_MAX: usize = 64;
/// Time for a request to arrive: its headers, then its body, seconds each.
pub const SERVE_ARRIVAL_SECONDS: u64 = 10;
/// Threads that read manifests and kept facts.
pub const SERVE_QUICK_THREADS: usize = 16;
/// How often files that may change are looked at: the kubelet writes them a minute or so after a Secret has changed.
pub const SERVE_FILES_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
/// Images that the server remembers having looked at.
pub const SERVE_IMAGES_MAX: usize = 50_000;
/// Images whose facts are held in memory, beside those on disk.
pub const SERVE_FACTS_MAX: u64 = 8;
/// Nodes that pods may land on, remembered by placement, bytes.
pub const SERVE_PLACEMENT_BYTES_MAX: u64 = 16 << 20;
/// Judgments held in memory, bytes.
pub const SERVE_JUDGMENT_BYTES_MAX: u64 = 64 << 20;
/// Further attempts at an image that was promised to be looked at (a day and more), and the first pause between them, seconds; it
/// doubles six times.
pub const SERVE_TRIES_MAX: u32 = 150;
pub const SERVE_RETRY_SECONDS: u64 = 10;
/// Images that wait for another attempt, for each place of the queue.
pub const SERVE_RETRIES_PER_PLACE: usize = 10;
/// Reports of the scanner adapter, and how long they are kept, seconds.
pub const SERVE_REPORTS_MAX: usize = 10_000;
pub const SERVE_REPORT_SECONDS: u64 = 3600;
/// Threads for judging and for loading kept facts; more work waits.
pub const SERVE_BLOCKING_THREADS: usize = 16;
/// Keys of one request of Gatekeeper.
pub const SERVE_KEYS_MAX: usize = 1000;
