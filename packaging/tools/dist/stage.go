package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// stage puts into dir what is the same on all platforms: the shells' completions,
// in completions, manual pages, in man, and the documents.
func (d dist) stage(ctx context.Context, dir string) error {
	if err := d.completions(ctx, filepath.Join(dir, "completions")); err != nil {
		return err
	}
	pages, err := filepath.Glob("packaging/man/*.[18]")
	if err != nil {
		return err
	}
	for _, page := range pages {
		if err := copyFile(filepath.Join(dir, "man", filepath.Base(page)), page); err != nil {
			return err
		}
	}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		if err := copyFile(filepath.Join(dir, name), name); err != nil {
			return err
		}
	}
	return nil
}

// stagePackage puts into dir what nfpm.yaml names: programs in bin, man1, man8,
// completions by their shells, and what only one format has, in a directory of
// that name.
func (d dist) stagePackage(dir string, p platform, shared string, notices []byte) error {
	if err := os.CopyFS(filepath.Join(dir, "bin"), os.DirFS(d.bin(p))); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(shared, "completions"))); err != nil {
		return err
	}
	packed := map[string]string{ // from, to
		filepath.Join(shared, "CHANGELOG.md"): "deb/doc/changelog.gz",
	}
	for _, section := range []string{"1", "8"} {
		pages, err := filepath.Glob(filepath.Join(shared, "man", "*."+section))
		if err != nil {
			return err
		}
		for _, page := range pages {
			packed[page] = filepath.Join("man"+section, filepath.Base(page)+".gz")
		}
	}
	for from, to := range packed {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := writeGzip(filepath.Join(dir, to), text); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{
		"packaging/nfpm/copyright":            "deb/doc/copyright",
		"packaging/nfpm/lintian-overrides":    "deb/lintian/tunneld",
		filepath.Join(shared, "CHANGELOG.md"): "rpm/doc/CHANGELOG.md",
		filepath.Join(shared, "README.md"):    "rpm/doc/README.md",
		filepath.Join(shared, "LICENSE"):      "rpm/licenses/LICENSE",
	} {
		if err := copyFile(filepath.Join(dir, to), from); err != nil {
			return err
		}
	}
	if err := write(filepath.Join(dir, "rpm/licenses/NOTICES"), notices); err != nil {
		return err
	}
	if err := writeGzip(filepath.Join(dir, "deb/doc/notices.gz"), notices); err != nil {
		return err
	}
	return writeGzip(filepath.Join(dir, "deb/doc/changelog.Debian.gz"), d.debianChangelog())
}

// debianChangelog has one entry: what changed is in the other changelog.
func (d dist) debianChangelog() []byte {
	return fmt.Appendf(nil, "tunneld (%s-1) unstable; urgency=medium\n\n  * Version %s: changelog.gz says what is new.\n\n -- tunneld <tunneld@users.noreply.github.com>  %s\n",
		d.packageVersion(), d.number(), d.time.Format(time.RFC1123Z))
}

// writeGzip writes text compressed, without a name and a time.
func writeGzip(name string, text []byte) error {
	packed, err := compress(text)
	if err != nil {
		return err
	}
	return write(name, packed)
}

func compress(data []byte) ([]byte, error) {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err = w.Close()
	return packed.Bytes(), err
}
