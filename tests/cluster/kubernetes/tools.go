//go:build tools

// Package tools names what is built besides the programs in go.mod: upstream's end-to-end tests.
package tools

import _ "k8s.io/kubernetes/test/e2e"
