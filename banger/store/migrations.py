"""The schema, as numbered steps. A step that was released is never edited; changes are new steps at the end.

``PRAGMA user_version`` counts the steps that a database has seen. Times are RFC 3339 text in UTC, which sorts.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE images (
        id TEXT PRIMARY KEY,
        name TEXT UNIQUE,               -- NULL: a moved tag left this content behind for the VMs that use it
        source TEXT NOT NULL,
        digest TEXT NOT NULL,
        platform TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        disk_bytes INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        owner_uid INTEGER NOT NULL,
        managed INTEGER NOT NULL,
        config TEXT NOT NULL
    ) STRICT;
    CREATE INDEX images_by_digest ON images (digest);

    CREATE TABLE kernels (
        id TEXT PRIMARY KEY,
        name TEXT UNIQUE,
        version TEXT NOT NULL,
        source TEXT NOT NULL,
        digest TEXT NOT NULL,
        platform TEXT NOT NULL,
        format TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        owner_uid INTEGER NOT NULL,
        has_modules INTEGER NOT NULL,
        has_initrd INTEGER NOT NULL,
        cmdline TEXT NOT NULL
    ) STRICT;

    CREATE TABLE vms (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL,
        state TEXT NOT NULL,
        created_at TEXT NOT NULL,
        owner_uid INTEGER NOT NULL,
        -- RESTRICT: an image delete and a VM create that race have exactly one winner, decided here
        image_id TEXT REFERENCES images (id) ON DELETE RESTRICT,
        kernel_id TEXT REFERENCES kernels (id) ON DELETE RESTRICT,
        reason TEXT NOT NULL,
        exit_reason TEXT NOT NULL,
        started_at TEXT,
        stopped_at TEXT,
        address TEXT NOT NULL,
        ports TEXT NOT NULL,
        ssh_port INTEGER NOT NULL,
        accelerator TEXT NOT NULL,
        pid INTEGER NOT NULL,
        timings TEXT NOT NULL
    ) STRICT;
    CREATE INDEX vms_by_image ON vms (image_id);
    CREATE INDEX vms_by_kernel ON vms (kernel_id);

    CREATE TABLE handles (
        vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE RESTRICT,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('intended', 'active', 'releasing')),
        detail TEXT NOT NULL,
        created_at TEXT NOT NULL,
        PRIMARY KEY (vm_id, kind, key)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE images ADD COLUMN rootfs_path TEXT NOT NULL DEFAULT '';
    ALTER TABLE images ADD COLUMN kernel TEXT NOT NULL DEFAULT '';
    ALTER TABLE images ADD COLUMN has_seed INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE images ADD COLUMN kernel_digest TEXT NOT NULL DEFAULT '';
    ALTER TABLE images ADD COLUMN kernel_source TEXT NOT NULL DEFAULT '';
    ALTER TABLE images ADD COLUMN defaults TEXT NOT NULL DEFAULT '{}';

    CREATE TABLE leases (
        holder TEXT NOT NULL,           -- an operation's id
        key TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        PRIMARY KEY (holder, key)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE vms ADD COLUMN storage TEXT NOT NULL DEFAULT 'overlay';
    ALTER TABLE vms ADD COLUMN paused_by TEXT NOT NULL DEFAULT '';
    ALTER TABLE vms ADD COLUMN keep_home INTEGER NOT NULL DEFAULT 1;
    """,
    """
    ALTER TABLE vms ADD COLUMN restarts TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE vms ADD COLUMN last_ports TEXT NOT NULL DEFAULT '[]';
    """,
    """
    ALTER TABLE vms ADD COLUMN attended INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE vms ADD COLUMN vmm TEXT NOT NULL DEFAULT 'qemu';
    """,
    """
    ALTER TABLE vms DROP COLUMN ssh_port;
    """,
    """
    ALTER TABLE vms ADD COLUMN vmm_version TEXT NOT NULL DEFAULT '';
    """,
    """
    ALTER TABLE vms ADD COLUMN vmm_reason TEXT NOT NULL DEFAULT '';
    """,
    """
    CREATE TABLE snapshots (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        vm_id TEXT NOT NULL,
        vm_name TEXT NOT NULL,
        image_id TEXT NOT NULL REFERENCES images (id) ON DELETE RESTRICT,
        kernel_id TEXT NOT NULL REFERENCES kernels (id) ON DELETE RESTRICT,
        spec TEXT NOT NULL,
        storage TEXT NOT NULL,
        created_at TEXT NOT NULL,
        owner_uid INTEGER NOT NULL,
        parent_id TEXT NOT NULL,
        vmm TEXT NOT NULL,
        vmm_version TEXT NOT NULL,
        cpu TEXT NOT NULL,
        accelerator TEXT NOT NULL,
        memory_mib INTEGER NOT NULL,
        details TEXT NOT NULL,
        memory_bytes INTEGER NOT NULL,
        disk_bytes INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX snapshots_by_image ON snapshots (image_id);
    CREATE INDEX snapshots_by_kernel ON snapshots (kernel_id);

    ALTER TABLE vms ADD COLUMN origin_snapshot TEXT NOT NULL DEFAULT '';
    ALTER TABLE vms ADD COLUMN forked_from TEXT NOT NULL DEFAULT '';
    """,
    """
    ALTER TABLE vms ADD COLUMN network TEXT NOT NULL DEFAULT '';
    ALTER TABLE vms ADD COLUMN network_reason TEXT NOT NULL DEFAULT '';
    """,
    """
    ALTER TABLE snapshots ADD COLUMN is_checkpoint INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE vms ADD COLUMN from_template TEXT NOT NULL DEFAULT '';
    ALTER TABLE vms ADD COLUMN makes_template TEXT NOT NULL DEFAULT '';

    CREATE TABLE templates (
        id TEXT PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        kernel_id TEXT NOT NULL REFERENCES kernels (id) ON DELETE CASCADE,
        snapshot TEXT NOT NULL,
        created_at TEXT NOT NULL,
        used_at TEXT NOT NULL,
        uses INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE template_wishes (
        id TEXT PRIMARY KEY,
        image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        kernel_id TEXT NOT NULL REFERENCES kernels (id) ON DELETE CASCADE,
        spec TEXT NOT NULL,
        at TEXT NOT NULL,
        owner_uid INTEGER NOT NULL,
        starts INTEGER NOT NULL,
        failed_at TEXT
    ) STRICT;
    """,
)
