package invoker

// maxGroups is the kernel's NGROUPS_MAX. Users of a Mac are easily in more.
const maxGroups = 16
