// Package formats checks payload formats with the libraries of those that
// defined the formats. These libraries are too heavy for the library's go.mod.
// The package has no code to import.
package formats
