package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// stage puts into dir what packages of all platforms have, by what it is: man1,
// man8, doc, lintian, and a directory for each shell's completions.
func (d dist) stage(ctx context.Context, dir string) error {
	if err := d.completions(ctx, dir); err != nil {
		return err
	}
	for _, section := range []string{"1", "8"} {
		pages, err := filepath.Glob("packaging/man/*." + section)
		if err != nil {
			return err
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				return err
			}
			if err := writeGzip(filepath.Join(dir, "man"+section, filepath.Base(page)+".gz"), text); err != nil {
				return err
			}
		}
	}
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	if err := writeGzip(filepath.Join(dir, "doc", "changelog.gz"), changelog); err != nil {
		return err
	}
	if err := writeGzip(filepath.Join(dir, "doc", "changelog.Debian.gz"), d.debianChangelog()); err != nil {
		return err
	}
	for from, to := range map[string]string{
		"packaging/nfpm/copyright":         "doc/copyright",
		"packaging/nfpm/lintian-overrides": "lintian/tunneld",
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, to), text); err != nil {
			return err
		}
	}
	return nil
}

// debianChangelog has one entry: what changed is in the other changelog.
func (d dist) debianChangelog() []byte {
	return fmt.Appendf(nil, "tunneld (%s-1) unstable; urgency=medium\n\n  * Version %s: changelog.gz says what is new.\n\n -- tunneld <tunneld@users.noreply.github.com>  %s\n",
		d.packageVersion(), d.number(), d.time.Format(time.RFC1123Z))
}

// pack makes the package for p of what was built and staged.
func (d dist) pack(format string, p platform) error {
	stage := filepath.Join(d.work, "stage")
	if err := os.RemoveAll(stage); err != nil {
		return err
	}
	if err := os.CopyFS(stage, os.DirFS(filepath.Join(d.work, "shared"))); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(stage, "bin"), os.DirFS(d.bin(p))); err != nil {
		return err
	}
	config, err := nfpm.ParseFileWithEnvMapping("packaging/nfpm/nfpm.yaml", func(name string) string {
		return map[string]string{"ARCH": p.arch, "PACKAGE_VERSION": d.packageVersion(), "STAGE": stage}[name]
	})
	if err != nil {
		return err
	}
	info, err := config.Get(format)
	if err != nil {
		return err
	}
	info.MTime = d.time
	info = nfpm.WithDefaults(info)
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	name := packager.ConventionalFileName(info)
	var made bytes.Buffer
	if err := packager.Package(info, &made); err != nil {
		return err
	}
	if err := write(filepath.Join(d.out, name), made.Bytes()); err != nil {
		return err
	}
	d.made(name)
	return nil
}

// writeGzip writes text compressed, without a name and a time.
func writeGzip(name string, text []byte) error {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return write(name, packed.Bytes())
}
