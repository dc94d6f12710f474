//go:build tools

// Names the program so that go.mod and go.sum stay complete; nothing here is compiled.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
