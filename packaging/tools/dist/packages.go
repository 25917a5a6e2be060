package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// pack makes the package for p.
func (d dist) pack(format string, p platform, shared string, notices []byte) error {
	stage := filepath.Join(d.work, "stage")
	if err := os.RemoveAll(stage); err != nil {
		return err
	}
	if err := d.stagePackage(stage, p, shared, notices); err != nil {
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
	if info.Contents, err = eachDocument(info.Contents); err != nil {
		return err
	}
	if format == "rpm" {
		// rpm has the first line elsewhere.
		info.RPM.Summary, info.Description, _ = strings.Cut(info.Description, "\n")
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	info = nfpm.WithDefaults(info)
	name := packager.ConventionalFileName(info)
	var file bytes.Buffer
	if err := packager.Package(info, &file); err != nil {
		return err
	}
	return d.save(name, file.Bytes())
}

// eachDocument puts the files themselves in the place of patterns for a rpm's
// documentation and licenses, where nfpm takes no patterns.
func eachDocument(contents files.Contents) (files.Contents, error) {
	var each files.Contents
	for _, c := range contents {
		if c.Type != files.TypeRPMDoc && c.Type != files.TypeRPMLicense {
			each = append(each, c)
			continue
		}
		names, err := filepath.Glob(c.Source)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			one := *c
			one.Source, one.Destination = name, c.Destination+filepath.Base(name)
			each = append(each, &one)
		}
	}
	return each, nil
}
