package rootapi

import (
	"context"
	"os"
)

// exchange finds nobody: there is no helper for Windows yet.
func (c *Client) exchange(context.Context, *request) (response, *os.File, error) {
	return response{}, nil, ErrNotInstalled
}
