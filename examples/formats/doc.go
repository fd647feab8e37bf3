// Package formats checks payload formats with the libraries of those who defined
// them, which are too heavy for the go.mod of the library. There is no code to
// import here.
package formats
