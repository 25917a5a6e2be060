package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// An entry is one file of an archive.
type entry struct {
	name string
	mode fs.FileMode
	data []byte
}

// archive makes the archive for p, for whoever takes no package: everything is in
// one directory, named as the archive is.
func (d dist) archive(p platform, shared string, notices []byte) error {
	var entries []entry
	for _, program := range p.programs() {
		data, err := os.ReadFile(filepath.Join(d.bin(p), p.file(program)))
		if err != nil {
			return err
		}
		entries = append(entries, entry{p.file(program), 0o755, data})
	}
	entries = append(entries, entry{"NOTICES", 0o644, notices})
	// In the order of their names, whatever the file system has.
	err := fs.WalkDir(os.DirFS(shared), ".", func(name string, file fs.DirEntry, err error) error {
		if err != nil || file.IsDir() || p.os == "windows" && strings.HasPrefix(name, "man/") {
			return err
		}
		data, err := os.ReadFile(filepath.Join(shared, name))
		entries = append(entries, entry{name, 0o644, data})
		return err
	})
	if err != nil {
		return err
	}
	if p.os == "windows" {
		packed, err := d.zip(d.name(p), entries)
		if err != nil {
			return err
		}
		return d.save(d.name(p)+".zip", packed)
	}
	packed, err := d.tar(d.name(p), entries)
	if err != nil {
		return err
	}
	if packed, err = compress(packed); err != nil {
		return err
	}
	return d.save(d.name(p)+".tar.gz", packed)
}

// tar packs entries, which are root's, below dir.
func (d dist) tar(dir string, entries []entry) ([]byte, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, e := range entries {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: path.Join(dir, e.name), Size: int64(len(e.data)), Mode: int64(e.mode),
			ModTime: d.time, Uname: "root", Gname: "root",
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return packed.Bytes(), err
}

// zip packs entries below dir.
func (d dist) zip(dir string, entries []entry) ([]byte, error) {
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	for _, e := range entries {
		header := &zip.FileHeader{Name: path.Join(dir, e.name), Method: zip.Deflate, Modified: d.time}
		header.SetMode(e.mode)
		file, err := w.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := file.Write(e.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return packed.Bytes(), err
}
