// Package isolate gives tests namespaces of their own, on Linux, so that they can
// change what is the machine's.
package isolate
