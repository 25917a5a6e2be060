// Package invoker tells on whose behalf a program runs: under sudo that is the user
// who typed it, and not root, whose home nothing of theirs belongs into.
package invoker
