// Package config is tunneld's configuration file: what it may say, and how it
// is read, edited and watched.
//
// The file is a plain part of YAML: mappings, lists, and values of one line
// each. Anchors, aliases, merge keys, tags, block text and further documents
// are refused with a sentence, so that what is written is what is meant, and so
// that an edit can keep everything it does not touch, byte for byte.
//
// This package knows nothing of clusters: whether a context or a Service
// exists is found out elsewhere.
package config
