/* Which file systems are the kernel's own, whose files have no size before they are read. */
#ifndef MOUNTS_H
#define MOUNTS_H

#include <stdbool.h>
#include <sys/types.h>

enum mount_kind { MOUNT_OF_DISK, MOUNT_OF_KERNEL, MOUNT_OF_TOOLBOX };

void mounts_read(void);
enum mount_kind mount_kind_of(dev_t device);

#endif
