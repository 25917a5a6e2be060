// Package netwatch tells when connections may have died without a word: when
// the machine has slept, and when its network is another than before. It probes
// nothing, and does not know what still works.
package netwatch
