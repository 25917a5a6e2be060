package environ

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tunneld/tunneld/internal/atomicfile"
)

// version is that of the file. A higher one is not read: it was written by a newer
// program, which may mean something else by it.
const version = 1

// maxFile bounds the file.
const maxFile = 1 << 20

var (
	// ErrNone: nothing has been captured.
	ErrNone = errors.New("no environment has been captured")
	// ErrNewer: the file was written by a newer version.
	ErrNewer = errors.New("the captured environment was written by a newer tunneld")
	// ErrBroken: the file says nothing of use.
	ErrBroken = errors.New("the captured environment cannot be read")
)

// A Capture is what was taken of a shell.
type Capture struct {
	// Time is when.
	Time      time.Time
	Variables map[string]string
}

// file is the layout of the file.
type file struct {
	Version   int               `json:"version"`
	Captured  time.Time         `json:"captured"`
	Variables map[string]string `json:"variables"`
}

// Path is the file of a state directory.
func Path(stateDir string) string { return filepath.Join(stateDir, "environment.json") }

// Load reads the file. An error Is one of the above, and names the file. What Take
// would not have taken is passed over, whoever wrote it there.
func Load(path string) (Capture, error) {
	data, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Capture{}, fmt.Errorf("%w: there is no %s", ErrNone, path)
	case err != nil:
		return Capture{}, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	c, err := parse(data)
	if err != nil {
		return Capture{}, fmt.Errorf("%w (%s)", err, path)
	}
	return c, nil
}

// read reads a regular file that is not longer than one may be.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe would be waited for
		return nil, fmt.Errorf("%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is longer than %d KiB", path, maxFile>>10)
	}
	return data, err
}

func parse(data []byte) (Capture, error) {
	// Of a newer version nothing is known but where its number stands.
	var about struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &about); err != nil {
		return Capture{}, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	switch {
	case about.Version > version:
		return Capture{}, fmt.Errorf("%w: it has version %d", ErrNewer, about.Version)
	case about.Version < 1:
		return Capture{}, fmt.Errorf("%w: it has no version", ErrBroken)
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&f); err != nil {
		return Capture{}, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	variables, _ := Filter(f.Variables)
	return Capture{Time: f.Captured, Variables: variables}, nil
}

// Save writes the file, for its user only, and its directory if need be. It writes
// what Filter keeps.
func Save(path string, c Capture) error {
	variables, _ := Filter(c.Variables)
	text, err := json.MarshalIndent(file{Version: version, Captured: c.Time.UTC().Truncate(time.Second), Variables: variables}, "", "  ")
	if err != nil {
		return fmt.Errorf("write down the environment: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write down the environment: %w", err)
	}
	if err := atomicfile.Write(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write down the environment: %w", err)
	}
	return nil
}
