// Package otscontainer starts an emulator of Tablestore for tests by way of
// testcontainers-go: in a container where a container engine is, and in the
// test's own process where none is. Tests see the same addresses either way.
//
//	e, err := otscontainer.Start(ctx, otscontainer.Config{Instance: "test"})
//	if err != nil { … }
//	defer e.Close()
//	client := tablestore.NewClient(e.Endpoint(), "test", "any id", "any secret")
//
// The container's image is built when it is needed, from a static binary that the
// go command makes of the emulator's version in the test's go.mod; nothing is
// pulled. A program that needs no process of its own has less work with package
// emulator itself.
package otscontainer
