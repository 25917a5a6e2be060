package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// A release is what is built: its version and its time, which all files get.
type release struct {
	version string // as Go has them: v1.2.3
	time    time.Time
}

// newRelease takes the version that is given, without its v or with it, and the
// time from $SOURCE_DATE_EPOCH. What is not given is the commit's.
func newRelease(root, version string) (release, error) {
	var r release
	if version != "" {
		r.version = "v" + strings.TrimPrefix(version, "v")
		if !semver.IsValid(r.version) || semver.Canonical(r.version)+semver.Build(r.version) != r.version {
			return release{}, fmt.Errorf("%q is not a version: it must be like 1.2.3 or 1.2.3-rc.1", version)
		}
	}
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return release{}, fmt.Errorf("reading SOURCE_DATE_EPOCH: %w", err)
		}
		r.time = time.Unix(seconds, 0).UTC()
	}
	if r.version != "" && !r.time.IsZero() {
		return r, nil
	}
	of, err := commit(root)
	if err != nil {
		return release{}, fmt.Errorf("outside a repository, VERSION and SOURCE_DATE_EPOCH have to be set: %w", err)
	}
	if r.version == "" {
		r.version = of.version
	}
	if r.time.IsZero() {
		r.time = of.time
	}
	return r, nil
}

// commit is the release that the checked out commit makes: with a tag's version
// if it has one, else the version that Go itself gives such a commit, which is
// later than the last tag and earlier than any after it.
func commit(root string) (release, error) {
	line, err := git(root, "log", "-1", "--format=%H %ct")
	if err != nil {
		return release{}, err
	}
	hash, seconds, _ := strings.Cut(line, " ")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return release{}, fmt.Errorf("reading the commit's time: %w", err)
	}
	r := release{time: time.Unix(unix, 0).UTC()}

	// Without a tag it fails, and tag is empty.
	tag, _ := git(root, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*.[0-9]*.[0-9]*")
	if tag != "" && !semver.IsValid(tag) {
		return release{}, fmt.Errorf("the tag %s is not a version", tag)
	}
	r.version = module.PseudoVersion(semver.Major(tag), tag, r.time, hash[:12])
	if tagged, _ := git(root, "rev-list", "-1", tag); tag != "" && tagged == hash {
		r.version = tag
	}
	changed, err := git(root, "status", "--porcelain")
	if err != nil {
		return release{}, err
	}
	if changed != "" {
		r.version += "+dirty"
	}
	return r, nil
}

func git(root string, args ...string) (string, error) {
	out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("git %s: %s", args[0], bytes.TrimSpace(failed.Stderr))
	}
	return string(bytes.TrimSpace(out)), err
}

// number is the version without its v, for the names of files.
func (r release) number() string { return strings.TrimPrefix(r.version, "v") }

// packageVersion is the version in the order that dpkg and rpm have: "~" is
// before the end, and "-" must not be in it.
func (r release) packageVersion() string {
	before, build, dirty := strings.Cut(r.number(), "+")
	core, pre, isPre := strings.Cut(before, "-")
	if isPre {
		core += "~" + strings.ReplaceAll(pre, "-", ".")
	}
	if dirty {
		core += "+" + strings.ReplaceAll(build, "-", ".")
	}
	return core
}
