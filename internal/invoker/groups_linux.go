package invoker

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536
