"""The app's pages: each reads what is chosen, asks the library, and draws."""
