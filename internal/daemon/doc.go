// Package daemon wires the program together: it turns the configuration, and
// what the clusters say, into a plan, brings the plan into force, and reports.
// It is the only package that knows all the others; each does its own work.
package daemon
